"""Tables, charts and the two pages."""
