"""The files of weights that others have published, one entry for each.

Addresses, licences and digests were read in the places that `confirmed` names,
not found out by downloading. Left out: what has no direct address (VideoMAE's
own files and AVA detectors, on Google Drive) and folders whose file names we
could not read (mae-b, mae-l and mae-h of the hub's OpenGVLab/VideoMAE2).
"""

import functools

from vivit_mae.convert.zoo_entry import Entry

PAPERS = {
  'VideoMAE': 'arXiv:2203.12602',
  'VideoMAE V2': 'arXiv:2303.16727',
  'MAE-ST': 'arXiv:2205.09113',
  'ViViT': 'arXiv:2103.15691',
  'ViT (images)': 'arXiv:2010.11929, arXiv:2106.10270',
  'MAE (images)': 'arXiv:2111.06377',
}

_NC = 'CC-BY-NC-4.0'
_APACHE = 'Apache-2.0'
_BIN, _SAFE = 'pytorch_model.bin', 'model.safetensors'
_BOTH = 'encoder and decoder'
_LISTED = 'in a list of downloads in a public repository'


def _videomae(
  name: str,
  hub: str,
  filename: str,
  epochs: int,
  top1: str,
  *,
  confirmed: str,
  size_bytes: int | None = None,
  sha256: str | None = None,
  notes: str = '',
) -> Entry:
  finetuned, k400 = name.endswith('finetune'), '_k400_' in name
  accuracy = f'K400 {top1} (16x5x3)' if k400 else f'SSv2 {top1} (16x2x3)'
  data = f'{"Kinetics-400" if k400 else "SSv2"}, {epochs} epochs'
  return Entry(
    name=f'videomae_v1_{name}',
    source='VideoMAE',
    holds='classifier' if finetuned else _BOTH,
    hub_id=f'MCG-NJU/videomae-{hub}',
    filename=filename,
    size_bytes=size_bytes,
    sha256=sha256,
    licence=_NC,
    non_commercial=True,
    data=f'{data}, then its labels' if finetuned else data,
    dataset=('kinetics_400' if k400 else 'something_something_v2')
    if finetuned
    else None,
    num_frames=16,
    stride=4 if k400 else None if finetuned else 2,
    accuracy=accuracy if finetuned else f'fine-tuned: {accuracy}',
    accuracy_source='github.com/MCG-NJU/VideoMAE, MODEL_ZOO.md',
    confirmed=f'huggingface.co/MCG-NJU/videomae-{hub}/{confirmed}',
    notes=notes,
  )


_SIX_HEADS = "6 heads, whatever the hub's config.json says"
_EARLIER = "{} on the card is MODEL_ZOO.md's earlier number of the same file"

_VIDEOMAE = (
  _videomae(
    *('b_k400_pretrain', 'base', _SAFE, 1600, '81.5'),
    size_bytes=376_873_760,
    sha256='bc053ca2840a038b1068269a4eec06ca569689e9a1ed9376a5b2b8a111be5290',
    confirmed='tree/main; size and sha256 in code that pins dc740ce',
  ),
  _videomae(
    *('b_k400_800e_pretrain', 'base-short', _SAFE, 800, '80.0'),
    sha256='b7cdfadd34f19cbdc1408d3fcaa4ac81a3f2876dbf297c9eedf9d6ef8013c430',
    confirmed='blob/main/model.safetensors',
  ),
  _videomae(
    *('l_k400_pretrain', 'large', _SAFE, 1600, '85.2'),
    confirmed='tree/main',
  ),
  _videomae(
    *('b_ssv2_pretrain', 'base-ssv2', _SAFE, 2400, '70.8'),
    sha256='2767ac4579e43b375d6c0a68a0842a79f88158a4ef8d205b5ca4af768a401662',
    confirmed='tree/main; sha256 at blob/refs/pr/1, since merged',
  ),
  _videomae(
    *('b_ssv2_800e_pretrain', 'base-short-ssv2', _BIN, 800, '69.6'),
    confirmed='commits/main and tree/refs/pr/1',
  ),
  _videomae(
    *('s_k400_finetune', 'small-finetuned-kinetics', _BIN, 1600, '79.0'),
    size_bytes=88_197_173,
    sha256='d69585904fec7e507bf2edfba4a7abe2b92def9afc76460d1dc14dbbf864bcfc',
    confirmed=f'resolve/main/pytorch_model.bin, with its sha256 {_LISTED}',
    notes=_SIX_HEADS,
  ),
  _videomae(
    *('b_k400_800e_finetune', 'base-short-finetuned-kinetics', _BIN, 800),
    top1='80.0',
    confirmed='commits/main and tree/633307c',
    notes=_EARLIER.format('79.4'),
  ),
  _videomae(
    *('b_k400_finetune', 'base-finetuned-kinetics', _BIN, 1600, '81.5'),
    size_bytes=346_198_861,
    sha256='f8462908e843373183868b89c56699f675839f1bebf43694a6c987c6df9d3ce4',
    confirmed=f'tree/main; size and sha256 {_LISTED}',
    notes=_EARLIER.format('80.9'),
  ),
  _videomae(
    *('l_k400_finetune', 'large-finetuned-kinetics', _SAFE, 1600, '85.2'),
    confirmed='tree/0f6adcd',
    notes=_EARLIER.format('84.7'),
  ),
  _videomae(
    *('h_k400_finetune', 'huge-finetuned-kinetics', _BIN, 1600, '86.6'),
    confirmed='commits/main/pytorch_model.bin',
  ),
  _videomae(
    *('s_ssv2_finetune', 'small-finetuned-ssv2', _BIN, 2400, '66.8'),
    sha256='e3a1aa3caef3828c9c3bc3240f7d2023d037962c0952db6d702779d05bbe5e09',
    confirmed="blob/refs/pr/2/pytorch_model.bin, which is main's 6b6f614",
    notes=_SIX_HEADS,
  ),
  _videomae(
    *('b_ssv2_800e_finetune', 'base-short-finetuned-ssv2', _BIN, 800, '69.6'),
    confirmed='tree/24fb695',
  ),
  _videomae(
    *('b_ssv2_finetune', 'base-finetuned-ssv2', _BIN, 2400, '70.8'),
    sha256='b960dafd7b3051e8be4ce7ca1bcbc051012eee2a0767f22dd6b7ca77507b82fb',
    confirmed='blob/main/pytorch_model.bin',
    notes=_EARLIER.format('70.6'),
  ),
)

_V2_ZOO = 'github.com/OpenGVLab/VideoMAEv2/docs/MODEL_ZOO.md'
# The hub's card says Apache-2.0, the code's LICENSE MIT. InternVideo#161 gives
# the same paths under OpenGVLab/InternVideoMAE_models.
_v2 = functools.partial(
  Entry,
  source='VideoMAE V2',
  hub_id='OpenGVLab/VideoMAE2',
  licence=_APACHE,
  non_commercial=False,
  num_frames=16,
  accuracy_source=_V2_ZOO,
)
_v2_k710 = functools.partial(
  _v2, holds='classifier', dataset='kinetics_710', stride=4
)
_V2_GIANT = 'UnlabeledHybrid, 1200 epochs'
_V2_BLOB = 'huggingface.co/OpenGVLab/VideoMAE2/blob/main/mae-g'
_V2_DISTILLED = f'{_V2_ZOO}; sha256 in code that pins 706cc17'


def _v2_encoder(
  size: str, hub: str, sha256: str, size_bytes: int | None = None
) -> Entry:
  where = 'blob/main/model.safetensors'
  if size == 'b':
    where = f'tree/main; size and sha256 {_LISTED}'
  return Entry(
    name=f'videomae_v2_{size}_encoder',
    source='VideoMAE V2',
    holds='encoder',
    hub_id=f'OpenGVLab/VideoMAEv2-{hub}',
    filename=_SAFE,
    size_bytes=size_bytes,
    sha256=sha256,
    licence=_NC,
    non_commercial=True,
    data='UnlabeledHybrid',
    num_frames=16,
    stride=4,
    confirmed=f'huggingface.co/OpenGVLab/VideoMAEv2-{hub}/{where}',
  )


_VIDEOMAE_V2 = (
  _v2(
    name='videomae_v2_g_pretrain',
    holds=_BOTH,
    filename='mae-g/vit_g_hybrid_pt_1200e.pth',
    size_bytes=4_105_433_973,
    sha256='5773c881d303426f2f0e906df9842c4ca95fba6a5901849a3e8d9d1ed8f79b5f',
    data=_V2_GIANT,
    stride=4,
    accuracy='fine-tuned: K400 87.2 (16x5x3), SSv2 77.0 (16x2x3)',
    confirmed=f'{_V2_BLOB}/vit_g_hybrid_pt_1200e.pth',
    notes='Stride 2 for clips of SSv2',
  ),
  _v2_k710(
    name='videomae_v2_g_k710_finetune',
    filename='mae-g/vit_g_hybrid_pt_1200e_k710_ft.pth',
    sha256='4c1b3fb76612bd5b767b82578833189c3fc83d351a9a25f0dcb2d9e2776ed8b3',
    data=f'{_V2_GIANT}, then labels of Kinetics-710',
    accuracy='K710 83.8 (16x5x3)',
    confirmed=f'{_V2_BLOB}/vit_g_hybrid_pt_1200e_k710_ft.pth',
  ),
  _v2(
    name='videomae_v2_g_ssv2_finetune',
    holds='classifier',
    filename='mae-g/vit_g_hybrid_pt_1200e_ssv2_ft.pth',
    size_bytes=2_023_804_201,
    sha256='5a210a92f035dff30c53b46157b612e7a1a5d3c99700e1b2d71da5c399ca7e70',
    data=f'{_V2_GIANT}, then labels of SSv2',
    dataset='something_something_v2',
    stride=None,
    accuracy='SSv2 77.0 (16x2x3)',
    confirmed=f'{_V2_BLOB}/vit_g_hybrid_pt_1200e_ssv2_ft.pth',
  ),
  _v2_k710(
    name='videomae_v2_s_k710_distilled',
    filename='distill/vit_s_k710_dl_from_giant.pth',
    size_bytes=44_334_609,
    sha256='24fb71687fa3671b8387cadfbcbab0f72af695692e93cf1ecc82caa888626172',
    data='Kinetics-710, distilled from the giant',
    accuracy='K710 77.6, K400 83.7, K600 83.1 (16x5x3)',
    confirmed=_V2_DISTILLED,
  ),
  _v2_k710(
    name='videomae_v2_b_k710_distilled',
    filename='distill/vit_b_k710_dl_from_giant.pth',
    size_bytes=173_574_417,
    sha256='8141a6955e0700d11bf15928fe6d61e5cfe482606fed8cfdddb1b922c0fd88ec',
    data='Kinetics-710, distilled from the giant',
    accuracy='K710 81.5, K400 86.6, K600 85.9 (16x5x3)',
    confirmed=_V2_DISTILLED,
  ),
  _v2_encoder(
    *('b', 'Base'),
    sha256='ebffa1874066ea227330016e58a848e9e2bb1ff5605746459bded1122a42176d',
    size_bytes=344_924_592,
  ),
  _v2_encoder(
    *('l', 'Large'),
    sha256='c27064402bfec2c7495e2226a5e0d8f46374b4df4b03026af1e10a57e11b2996',
    size_bytes=1_215_474_840,
  ),
  _v2_encoder(
    *('h', 'Huge'),
    sha256='6a05040256a2043d05551dd3d036a1c1139edfcfb600454a338bf4b92ca70338',
  ),
  _v2_encoder(
    *('g', 'giant'),
    sha256='a231169cd13307aeb29bc56259a494ef273bfd9b7232f881ac4e8d7e39713add',
  ),
)

_META = 'https://dl.fbaipublicfiles.com'
_mae_st = functools.partial(
  Entry,
  source='MAE-ST',
  holds=_BOTH,
  non_commercial=True,
  num_frames=16,
  stride=4,
)


def _mae_st_own(size: str, data: int, md5: str, accuracy: str = '') -> Entry:
  return _mae_st(
    name=f'mae_st_{size[0]}_k{data}_pretrain',
    url=f'{_META}/video-mae/pretrain/mae_pretrain_vit_{size}_k{data}.pth',
    md5_prefix=md5,
    licence=_NC,
    data=f'Kinetics-{data}, 400 epochs of 4 clips',
    accuracy=accuracy,
    accuracy_source='github.com/facebookresearch/mae_st, FINETUNE.md',
    confirmed='github.com/facebookresearch/mae_st, README.md',
  )


def _slowfast(size: str, filename: str, epochs: int, top1: str) -> Entry:
  where = 'github.com/facebookresearch/SlowFast, projects/mae/README.md'
  return _mae_st(
    name=f'mae_st_slowfast_{size}_k400_pretrain',
    url=f'{_META}/pyslowfast/masked_models/{filename}',
    licence=f'{_NC} (assumed)',
    data=f'Kinetics-400, {epochs} epochs of 4 clips',
    accuracy=f'fine-tuned: K400 {top1} (16x7x3)',
    accuracy_source=where,
    confirmed=where,
    notes="PySlowFast's code is Apache-2.0; of its weights it says nothing, so "
    "MAE-ST's licence is assumed",
  )


_MAE_ST = (
  _mae_st_own('large', 400, 'edf3a5', 'fine-tuned: K400 84.35'),
  _mae_st_own('large', 600, '9a9645'),
  _mae_st_own('large', 700, 'cdbada'),
  _mae_st_own('huge', 400, '3d7f64'),
  _mae_st_own('huge', 600, '27495e'),
  _mae_st_own('huge', 700, '4c4e3c'),
  _slowfast('b', 'VIT_B_16x4_MAE_PT.pyth', 200, '81.3'),
  _slowfast('l', 'VIT_L_16x4_MAE_PT.pyth', 200, '84.8'),
  _slowfast('h', 'VIT_H_16x4_MAE_PT_400e_85.1.pyth', 400, '85.1'),
)

_GOOGLE = 'https://storage.googleapis.com'
_SCENIC = 'github.com/google-research/scenic, projects/vivit/README.md'


def _scenic(
  name: str,
  folder: str,
  dataset: str,
  accuracy: str,
  notes: str,
  stride: int = 2,
) -> Entry:
  return Entry(
    name=f'vivit_{name}',
    source='ViViT',
    holds='classifier',
    url=f'{_GOOGLE}/scenic-bucket/vivit/{folder}/checkpoint',
    licence=_APACHE,
    non_commercial=False,
    data=_SCENIC_DATA[dataset],
    dataset=dataset,
    num_frames=32,
    stride=stride,
    accuracy=accuracy,
    accuracy_source=_SCENIC,
    confirmed=_SCENIC,
    notes=notes,
  )


_SCENIC_DATA = {
  'kinetics_400': 'Kinetics-400',
  'kinetics_600': 'Kinetics-600',
  'epic_kitchens_100': 'Epic-Kitchens',
}

_VIVIT = (
  _scenic(
    *('b_k400', 'kinetics_400/vivit_base_16x2_unfactorized'),
    *('kinetics_400', 'K400 79.9 (32x4x3)', 'Model 1'),
  ),
  _scenic(
    *('b_fe_k400', 'kinetics_400/vivit_base_16x2_fe'),
    *('kinetics_400', 'K400 78.4 (32x4x3)', 'Model 2'),
  ),
  _scenic(
    *('l_fe_k400', 'kinetics_400/vivit_large_16x2_fe'),
    *('kinetics_400', 'K400 80.3 (32x4x3)', 'Model 2'),
  ),
  _scenic(
    *('l_fe_k600', 'kinetics_600/vivit_large_16x2_fe'),
    *('kinetics_600', 'K600 81.6 (32x4x3)', 'Model 2'),
  ),
  _scenic(
    *('l_fe_epic_kitchens', 'epic_kitchens/vivit_large_16x2_fe'),
    *('epic_kitchens_100', 'Epic-Kitchens 43.6 (32x4x1)'),
    notes='Model 2; one head of 300 nouns and 97 verbs',
    stride=1,
  ),
  Entry(
    name='vivit_b_k400_hf',
    source='ViViT',
    holds='classifier',
    hub_id='google/vivit-b-16x2-kinetics400',
    filename=_BIN,
    sha256='160c79526e796d6101c4d9d0fe4000e26a6098a4d8e97f4cb8935fa6deb060d0',
    licence='MIT',
    non_commercial=False,
    data='Kinetics-400',
    dataset='kinetics_400',
    num_frames=32,
    stride=2,
    accuracy='K400 79.9 (32x4x3)',
    accuracy_source=_SCENIC,
    confirmed='huggingface.co/google/vivit-b-16x2-kinetics400/tree/main; '
    'sha256 at blob/990d41c',
    notes='vivit_b_k400, converted; google/vivit-b-16x2 holds the same file',
  ),
)

_vit = functools.partial(
  Entry,
  source='ViT (images)',
  holds='encoder',
  licence=_APACHE,
  non_commercial=False,
  data='ImageNet-21k',
  num_frames=1,
  stride=None,
)


def _augreg(size: str, filename: str) -> Entry:
  return _vit(
    name=f'vit_{size}_imagenet21k_augreg',
    url=f'{_GOOGLE}/vit_models/augreg/{filename}.npz',
    confirmed="timm's models/vision_transformer.py"
    if size in 'bl'
    else "big_vision's models/vit.py",
  )


_mae_image = functools.partial(
  Entry,
  source='MAE (images)',
  licence=_NC,
  non_commercial=True,
  data='ImageNet-1k',
  num_frames=1,
  stride=None,
)


def _mae_encoder(size: str, md5: str, top1: str, notes: str = '') -> Entry:
  return _mae_image(
    name=f'mae_image_{size[0]}_pretrain',
    holds='encoder',
    url=f'{_META}/mae/pretrain/mae_pretrain_vit_{size}.pth',
    md5_prefix=md5,
    accuracy=f'fine-tuned: ImageNet-1k {top1}',
    accuracy_source='github.com/facebookresearch/mae, README.md',
    confirmed='github.com/facebookresearch/mae, README.md',
    notes=notes,
  )


def _mae_decoder(size: str) -> Entry:
  return _mae_image(
    name=f'mae_image_{size[0]}_visualise',
    holds=_BOTH,
    url=f'{_META}/mae/visualize/mae_visualize_vit_{size}.pth',
    confirmed="public code that downloads it; licence: mae's README.md",
    notes='Predicts pixels as they are, not normalised ones',
  )


_IMAGES = (
  _augreg('ti', 'Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0'),
  _augreg('s', 'S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0'),
  _augreg('b', 'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0'),
  _augreg('l', 'L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1'),
  _vit(
    name='vit_b_imagenet21k',
    url=f'{_GOOGLE}/vit_models/imagenet21k/ViT-B_16.npz',
    confirmed='github.com/google-research/vision_transformer, README.md',
  ),
  _vit(
    name='vit_l_imagenet21k',
    url=f'{_GOOGLE}/vit_models/imagenet21k/ViT-L_16.npz',
    confirmed='public code that downloads it, beside vit_b_imagenet21k',
  ),
  _vit(
    name='vit_b_imagenet21k_hf',
    hub_id='google/vit-base-patch16-224-in21k',
    filename=_SAFE,
    confirmed='huggingface.co/google/vit-base-patch16-224-in21k/tree/main',
  ),
  _vit(
    name='vit_b_imagenet21k_augreg_timm',
    hub_id='timm/vit_base_patch16_224.augreg_in21k',
    filename=_SAFE,
    confirmed='huggingface.co/timm/vit_base_patch16_224.augreg_in21k/tree/main',
  ),
  _mae_encoder('base', '8cad7c', '83.6'),
  _mae_encoder('large', 'b8b06e', '85.9'),
  _mae_encoder('huge', '9bdbb0', '86.9', 'Patches of 14x14 pixels'),
  _mae_decoder('base'),
  _mae_decoder('large'),
)

ENTRIES = (*_VIDEOMAE, *_VIDEOMAE_V2, *_MAE_ST, *_VIVIT, *_IMAGES)
