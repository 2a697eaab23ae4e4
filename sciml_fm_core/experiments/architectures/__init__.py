"""Networks that the Fourier neural operator is compared with: a U-Net and a vision transformer."""

from . import unet, vit  # noqa: F401 - registers them
