"""Trained models in use: loaded, applied to new images, evaluated and exported."""
