"""Backbones, decoders, the segmentation model and its weights."""
