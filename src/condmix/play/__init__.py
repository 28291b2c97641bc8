"""`condmix play`: a page on this machine to type captions and see pictures."""
