"""Video transformers and masked-autoencoder pretraining in JAX/Flax."""

__version__ = '0.1.0'
