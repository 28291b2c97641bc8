"""The files that evaluation wrote, read and checked: rows to compare, and what a variant left to look at."""
