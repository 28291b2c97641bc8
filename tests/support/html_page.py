"""A page taken apart, for assertions about what it shows."""

import base64
import hashlib
import re
from html.parser import HTMLParser


def runs_our_script_alone(html):
    """Asserts that the page has one script, whose hash its policy names, and loads nothing."""
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert html.count("<script") == 1
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{sha256}'" in html
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r'"data:[^"]*"', "", html).replace(script, ""))


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
