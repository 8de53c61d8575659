"""DATA: the schemas of the three kinds of profile, and finding, reading and importing them."""
