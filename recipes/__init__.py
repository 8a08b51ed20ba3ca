"""Published headline runs, ready to launch: what to type, what to expect, what it takes."""
