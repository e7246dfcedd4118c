"""Tables for people, programs and files."""
