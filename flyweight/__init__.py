"""Flyweight makes a small language model punch above its weight."""

__version__ = "0.1.0"
