"""How bytes reach the disk and come back: whole or not at all, checked against a checksum."""
