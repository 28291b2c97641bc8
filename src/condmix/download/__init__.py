"""Files from elsewhere: archives that are resumed and verified, and lists of captions and URLs."""
