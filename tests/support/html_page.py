"""A page taken apart, for assertions about what it shows."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags with their attributes, exact values of <data>, and the text of each section and of the captions."""

    VOID = {"meta", "link", "img", "br"}

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open, self.section = [], {}, [], ""
        self.values, self.captions = {}, []
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attributes["id"]
        if tag == "data":
            self.values.setdefault(self.section, []).append(float(attributes["value"]))
        if tag == "li":
            self.captions.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text[self.section] = self.text.get(self.section, "") + text
        if "li" in self.open:
            self.captions[-1] += text
