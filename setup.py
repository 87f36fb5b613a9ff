"""Package metadata of vivit_mae; tool settings live in pyproject.toml."""

import pathlib

import setuptools

_ROOT = pathlib.Path(__file__).parent

_JAX = 'jax>=0.10'

# The default install trains on videos and holds neither TensorFlow nor torch.
_INSTALL = [
  'absl-py>=2',
  'array_record>=0.8.1',
  'av>=18',
  'clu>=0.0.12',
  'etils[epath]>=1.9.1',
  'filelock>=3.13',
  'flax>=0.12',
  'grain>=0.2.16',
  'huggingface_hub>=1',
  _JAX,
  'jaxtyping>=0.3',
  'ml_collections>=1.1',
  'ml_dtypes>=0.5',
  'msgpack>=1',
  'numpy>=2',
  'opencv-python-headless>=4.11',
  'optax>=0.2.6',
  'orbax-checkpoint>=0.12',
  'pillow>=10.1',
  'protobuf>=4',
  'safetensors>=0.5',
  'tensorboardX>=2.6',
  'tensorflow-datasets>=4.9.10',
  'tqdm>=4.66',
]

_BEAM = 'apache-beam>=2.70'

_TEST = [
  _BEAM,
  'beartype>=0.20',
  'import-linter>=2',
  'ipykernel',
  'nbclient',
  'nbformat',
  'pyright',
  'pytest>=8',
  'pytest-xdist>=3',
  'ruff',
  'scikit-learn>=1.5',
]

setuptools.setup(
  name='vivit_mae',
  version='0.1.0',
  description=(
    'Video transformers and masked-autoencoder pretraining in JAX/Flax: '
    'VideoMAE, MAE-ST and ViViT.'
  ),
  long_description=(_ROOT / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  packages=setuptools.find_packages(include=['vivit_mae', 'vivit_mae.*']),
  package_data={'vivit_mae.convert': ['labels/*.txt']},
  python_requires='>=3.11',
  install_requires=_INSTALL,
  extras_require={
    'test': _TEST,
    'cuda': ['jax[cuda13]>=0.10'],
    'tpu': ['jax[tpu]>=0.10'],
    'benchmark': ['scikit-learn>=1.5', 'torch>=2.6', 'transformers>=5'],
    'beam': [_BEAM],
  },
  classifiers=[
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
)
