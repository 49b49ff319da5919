"""Boxes over an image, and which rank owns which subdomain."""
