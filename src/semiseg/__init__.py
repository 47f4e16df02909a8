"""semiseg trains semantic segmentation networks from few labeled and many unlabeled images."""

__version__ = "0.1.0"
