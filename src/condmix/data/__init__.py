"""The files that stages hand one another: captions, embeddings, packed perspectives; and their checks."""
