import pathlib
import re

import pytest

from vivit_mae.convert import class_names, zoo
from vivit_mae.convert.zoo_files import ENTRIES, PAPERS

DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'model_zoo.md'

every_entry = pytest.mark.parametrize('entry', ENTRIES, ids=lambda e: e.name)


def test_no_name_and_no_file_is_there_twice():
  assert len(zoo.ZOO) == len(ENTRIES)
  assert len({entry.address for entry in ENTRIES}) == len(ENTRIES)


@every_entry
def test_an_entry_says_where_its_file_is(entry):
  assert re.fullmatch(r'[a-z0-9_]+', entry.name)
  assert entry.address.startswith('https://')
  assert bool(entry.url) != bool(entry.hub_id and entry.filename)
  assert re.fullmatch(r'[\w.\-]+', entry.basename)
  assert entry.basename == entry.address.rpartition('/')[2]
  assert entry.confirmed


@every_entry
def test_digests_are_written_as_they_are_compared(entry):
  assert entry.sha256 is None or re.fullmatch(r'[0-9a-f]{64}', entry.sha256)
  prefix = entry.md5_prefix
  assert prefix is None or re.fullmatch(r'[0-9a-f]{6}', prefix)
  assert entry.size_bytes is None or entry.size_bytes > 1 << 20


@every_entry
def test_an_entry_states_its_licence_data_and_sampling(entry):
  assert entry.source in PAPERS
  assert entry.non_commercial == ('-NC-' in entry.licence)
  assert re.match(r'(CC-BY-NC-4.0|Apache-2.0|MIT)', entry.licence)
  assert entry.data
  assert entry.num_frames in (1, 16, 32)
  spread = (
    entry.dataset == 'something_something_v2'
  )  # over the whole video, not by a stride
  assert (entry.stride is None) == (spread or entry.num_frames == 1)
  assert entry.accuracy_source or not entry.accuracy
  unnamed = ('kinetics_710', 'epic_kitchens_100')
  assert entry.dataset in (None, *class_names.DATASETS, *unnamed)
  if entry.num_frames > 1:
    assert (entry.dataset is not None) == (entry.holds == 'classifier')


@pytest.mark.parametrize('source', ['VideoMAE', 'MAE-ST', 'MAE (images)'])
def test_what_is_for_research_only_is_marked(source):
  entries = [entry for entry in ENTRIES if entry.source == source]
  assert entries
  assert all(entry.non_commercial for entry in entries)


@pytest.mark.parametrize(
  ('name', 'address', 'dataset', 'stride'),
  [
    (
      'videomae_v1_b_ssv2_pretrain',
      'https://huggingface.co/MCG-NJU/videomae-base-ssv2/resolve/main/'
      'model.safetensors',
      *(None, 2),
    ),
    (
      'videomae_v1_b_k400_800e_finetune',
      'https://huggingface.co/MCG-NJU/videomae-base-short-finetuned-kinetics/'
      'resolve/main/pytorch_model.bin',
      *('kinetics_400', 4),
    ),
    (
      'videomae_v2_b_k710_distilled',
      'https://huggingface.co/OpenGVLab/VideoMAE2/resolve/main/distill/'
      'vit_b_k710_dl_from_giant.pth',
      *('kinetics_710', 4),
    ),
    (
      'mae_st_h_k700_pretrain',
      'https://dl.fbaipublicfiles.com/video-mae/pretrain/'
      'mae_pretrain_vit_huge_k700.pth',
      *(None, 4),
    ),
    (
      'vivit_b_k400',
      'https://storage.googleapis.com/scenic-bucket/vivit/kinetics_400/'
      'vivit_base_16x2_unfactorized/checkpoint',
      *('kinetics_400', 2),
    ),
    (
      'mae_image_l_visualise',
      'https://dl.fbaipublicfiles.com/mae/visualize/'
      'mae_visualize_vit_large.pth',
      *(None, None),
    ),
  ],
)
def test_some_entries_in_full(name, address, dataset, stride):
  entry = zoo.lookup(name)
  assert (entry.address, entry.dataset, entry.stride) == (
    *(address, dataset, stride),
  )


def test_an_unknown_name_is_answered_with_the_nearest():
  with pytest.raises(ValueError, match=r"'vivit_b_k40'.* vivit_b_k400,"):
    zoo.lookup('vivit_b_k40')
  with pytest.raises(ValueError, match=r'the nearest of \d+ names'):
    zoo.lookup('?')


def test_the_table_is_well_formed_and_whole():
  rows = [row for row in zoo.table().splitlines() if row.startswith('|')]
  assert {row.count('|') for row in rows} == {10}
  for entry in ENTRIES:
    assert f'| [`{entry.name}`]({entry.address}) |' in zoo.table()


def test_the_page_holds_the_table():
  text = DOCS.read_text(encoding='utf-8')
  assert zoo.table() in text, (
    'docs/model_zoo.md: replace its tables by what '
    "python -c 'from vivit_mae.convert import zoo; print(zoo.table())' prints"
  )
