"""How pre-trained neural operators transfer: spectral solvers, Fourier neural operators, training and transfer."""

__version__ = "0.1.0"
