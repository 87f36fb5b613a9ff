import dataclasses
import functools
import pathlib
from typing import Any

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

from tests.data import tiny_videos
from vivit_mae import config as config_lib
from vivit_mae import evaluation, masking, tasks
from vivit_mae.data import datasets, encode
from vivit_mae.evaluation import reconstruction
from vivit_mae.tasks import mae

SIZE = (32, 32)


def make_config(normalise='channel', **target):
  config = config_lib.defaults()
  config.total_steps = 1
  config.model.update(
    variant='Ti/8x2',
    num_frames=4,
    image_size=SIZE,
    width=16,
    depth=1,
    heads=2,
    mlp_dim=32,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
    decoder_mlp_dim=32,
  )
  config.mask.ratio = 0.75
  config.target.update(normalise=normalise, **target)
  config.data.stride = 1
  return config


class Oracle(mae.MaskedAutoencoding):
  """Predicts exactly what it should."""

  def predict(self, variables, inputs, mask, *, deterministic, row_keys=None):
    del variables, deterministic, row_keys
    unit = inputs * jnp.asarray(self.std) + jnp.asarray(self.mean)
    return self.target.target(unit, mask.masked)


class Blank(mae.MaskedAutoencoding):
  """Predicts nothing, in no time."""

  def predict(self, variables, inputs, mask, *, deterministic, row_keys=None):
    del variables, inputs, deterministic, row_keys
    return jnp.zeros((*mask.masked.shape, self.target.dim))


def make_task(
  kind: type[mae.MaskedAutoencoding] = Oracle, **options: Any
) -> mae.MaskedAutoencoding:
  task = tasks.build(make_config(**options))
  assert isinstance(task, mae.MaskedAutoencoding)
  fields = dataclasses.fields(task)
  return kind(**{field.name: getattr(task, field.name) for field in fields})


def make_clips(rows=2, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (rows, 4, *SIZE, 3), np.uint8)


def make_mask(task, rows=2):
  return task.sample_mask(jax.random.split(jax.random.key(0), rows))


def token_pixels(video, tokens, patch=(2, 8, 8)):
  """The pixels of some tokens of one clip, by hand: `[n, p, 3]`."""
  t, h, w = patch
  found = []
  for token in tokens:
    i, j, k = np.unravel_index(token, (2, 4, 4))
    box = video[t * i : t * i + t, h * j : h * j + h, w * k : w * k + w]
    found.append(box.reshape(-1, 3))
  return np.stack(found)


class Source:
  """Tiny videos in memory; some can not be read."""

  name, class_names, multi_label = 'tiny', (), False

  def __init__(self, count, bad=()):
    self._videos = [_video(number) for number in range(count)]
    for number in bad:
      self._videos[number] = b'this is no video'

  def __len__(self):
    return len(self._videos)

  def __getitem__(self, index):
    return datasets.Example(self._videos[index], -1, f'{index}')


@functools.cache
def _video(number):
  return encode.write_video(None, tiny_videos.frames(number), 10.0)


def put(batch):
  return {name: jnp.asarray(value) for name, value in batch.items()}


def make_evaluator(workdir, source, task=None, num_devices=1, **fields):
  return reconstruction.Evaluator(
    task=task or make_task(),
    source=source,
    data=make_config().data.to_dict(),
    put=put,
    num_devices=num_devices,
    workdir=epath.Path(workdir),
    **fields,
  )


def run(evaluator, step=7):
  """Numbers and pictures."""
  found = dict(evaluator.run({}, step))
  pictures = {k: v for k, v in found.items() if isinstance(v, np.ndarray)}
  return {k: found[k] for k in found.keys() - pictures.keys()}, pictures


@pytest.mark.parametrize('normalise', ['channel', 'patch', 'none'])
@pytest.mark.parametrize('frames', ['all', 'one'])
def test_the_true_target_gives_the_original_back(normalise, frames):
  task = make_task(normalise=normalise, frames=frames)
  video = make_clips()
  result = reconstruction.reconstruct(
    task, {}, jnp.asarray(video), make_mask(task)
  )
  kept = video if frames == 'all' else video[:, ::2]
  np.testing.assert_array_equal(result.original, kept)
  error = np.asarray(result.true_statistics, int) - kept
  assert np.abs(error).max() <= 1
  assert (result.psnr_true_statistics > 60).all()
  assert (result.loss < 1e-6).all()
  if normalise == 'none':
    np.testing.assert_array_equal(result.model_only, result.true_statistics)
    np.testing.assert_array_equal(result.psnr, result.psnr_true_statistics)
  else:
    assert (result.psnr < result.psnr_true_statistics - 30).all()


@pytest.mark.parametrize('kind', ['tube', 'random'])
def test_visible_tokens_are_untouched_and_masked_ones_grey(kind):
  task = make_task(Blank)
  task = dataclasses.replace(task, mask_kind=kind)
  video, mask = make_clips(), make_mask(task)
  result = reconstruction.reconstruct(task, {}, jnp.asarray(video), mask)
  for row in range(2):
    visible = token_pixels(video[row], mask.visible[row])
    assert len(visible) == 8
    for name in ('original', 'masked', 'model_only', 'true_statistics'):
      shown = np.asarray(getattr(result, name)[row])
      np.testing.assert_array_equal(
        token_pixels(shown, mask.visible[row]), visible
      )
    hidden = token_pixels(np.asarray(result.masked[row]), mask.masked[row])
    assert (hidden == 128).all()


def test_psnr_is_over_the_masked_pixels():
  task = make_task(Blank, normalise='none')
  video, mask = make_clips(), make_mask(task)
  result = reconstruction.reconstruct(task, {}, jnp.asarray(video), mask)
  for row in range(2):
    unit = video[row] / 255
    hidden = token_pixels(unit, mask.masked[row])
    colour = token_pixels(unit, mask.visible[row]).mean((0, 1))
    guess = -10 * np.log10(np.mean((hidden - colour) ** 2))
    np.testing.assert_allclose(result.psnr_guess[row], guess, rtol=1e-5)
    # The blank model paints the masked pixels black.
    black = -10 * np.log10(np.mean(hidden**2))
    np.testing.assert_allclose(result.psnr[row], black, rtol=1e-5)


def test_a_blank_normalised_prediction_is_the_mean_visible_colour():
  task = make_task(Blank)
  video = jnp.asarray(make_clips())
  result = reconstruction.reconstruct(task, {}, video, make_mask(task))
  np.testing.assert_allclose(result.psnr, result.psnr_guess, rtol=1e-6)


def test_masks_depend_on_the_video_alone():
  task = dataclasses.replace(make_task(Blank), mask_kind='random')
  reconstruct = jax.jit(
    functools.partial(reconstruction._reconstruct_batch, task)
  )
  video = make_clips(6)
  video[:] = 255  # what is 128 in the masked clip is masked

  def masked(indices):
    indices = np.asarray(indices, np.int32)
    batch = {'video': video[: len(indices)], 'index': indices}
    found = reconstruct({}, put(batch))
    np.testing.assert_array_equal(found['indices'], indices)
    return np.asarray(found['rows'].masked)

  all_six = masked(range(6))
  np.testing.assert_array_equal(all_six, masked(range(6)))
  np.testing.assert_array_equal(all_six[[4, 2]], masked([4, 2]))
  np.testing.assert_array_equal(all_six[[1, 3]], masked([1, 3, -1])[:2])
  assert len({mask.tobytes() for mask in all_six}) == 6


def test_the_batch_changes_nothing(tmp_path):
  results = []
  for num_devices in (1, 3, 16):  # batches of 8, 9 and 16; 10 videos
    evaluator = make_evaluator(
      tmp_path, Source(10), make_task(Blank), num_devices, formats=()
    )
    results.append(run(evaluator))
  numbers, pictures = results[0]
  for others, other_pictures in results[1:]:
    assert others.keys() == numbers.keys()
    for name, value in numbers.items():
      assert others[name] == pytest.approx(value, rel=1e-5)
    assert other_pictures.keys() == pictures.keys()
    for name, picture in pictures.items():
      np.testing.assert_array_equal(other_pictures[name], picture)


def test_the_evaluator_yields_and_writes(tmp_path):
  evaluator = make_evaluator(
    tmp_path, Source(3), num_pictures=2, formats=('png', 'gif', 'mp4')
  )
  assert isinstance(evaluator, evaluation.Evaluator)
  numbers, pictures = run(evaluator)
  assert numbers.keys() == {
    'loss', 'psnr', 'psnr_true_statistics', 'psnr_guess'
  }  # fmt: skip
  assert all(isinstance(value, float) for value in numbers.values())
  assert numbers['psnr_true_statistics'] > 60 > numbers['psnr']
  assert numbers['loss'] < 1e-5
  assert pictures.keys() == {'clip_00', 'clip_02'}
  folder = tmp_path / 'reconstructions' / 'step_00000007'
  assert {path.name for path in folder.iterdir()} == {
    f'clip_{number}.{end}'
    for number in ('00', '02')
    for end in ('png', 'gif', 'mp4')
  } | {'overview.png'}
  both = np.asarray(Image.open(folder / 'overview.png'))
  assert both.shape == (2 * 4 * (18 + 96 + 4) + 8, 4 * (96 + 4), 3)
  for name, picture in pictures.items():
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(
      np.asarray(Image.open(folder / f'{name}.png')), picture
    )
    # Four rows of labelled clips below, and beside, each other.
    assert picture.shape == (4 * (18 + 96 + 4), 4 * (96 + 4), 3)
    with Image.open(folder / f'{name}.gif') as gif:
      assert getattr(gif, 'n_frames', 1) == 4
      assert gif.size == (4 * (96 + 4), 18 + 96 + 4)
    with av.open(str(folder / f'{name}.mp4')) as movie:
      frames = [f.to_ndarray(format='rgb24') for f in movie.decode(video=0)]
    assert np.stack(frames).shape == (4, 18 + 96 + 4, 4 * (96 + 4), 3)


def test_raw_pixels_have_no_second_row(tmp_path):
  evaluator = make_evaluator(
    tmp_path, Source(1), make_task(normalise='none'), formats=('png',)
  )
  numbers, pictures = run(evaluator)
  assert numbers.keys() == {'loss', 'psnr', 'psnr_guess'}
  assert pictures['clip_00'].shape[0] == 3 * (18 + 96 + 4)
  names = sorted(p.name for p in tmp_path.rglob('*.*'))
  assert names == ['clip_00.png', 'overview.png']


def test_padding_and_unreadable_videos_do_not_count(tmp_path):
  def numbers(source):
    task = make_task(Blank)
    return run(make_evaluator(tmp_path, source, task, formats=()))[0]

  # All in a batch of eight.
  all_five = numbers(Source(5))
  without_last = numbers(Source(5, bad=(4,)))
  first_four = numbers(Source(4))
  for name, value in without_last.items():
    assert value == pytest.approx(first_four[name], rel=1e-5)
  assert without_last['psnr'] != pytest.approx(all_five['psnr'], rel=1e-3)


@pytest.mark.parametrize(
  ('num_clips', 'drawn'), [(3, [0, 1, 2]), (10, [0, 1, 2, 4])]
)
def test_fewer_and_more_clips_than_videos(tmp_path, num_clips, drawn):
  evaluator = make_evaluator(
    tmp_path, Source(5), make_task(Blank), num_clips=num_clips, formats=()
  )
  _, pictures = run(evaluator)
  assert sorted(pictures) == [f'clip_{number:02d}' for number in drawn]


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'kind': 'reconstruct'}, r"evals\.mine\.kind is 'reconstruct'; known"),
    ({'num_clip': 3}, r"evals\.mine: .*'num_clip'"),
    ({'formats': ('png', 'webm')}, r"formats .*\['webm'\]; known are .*'mp4'"),
  ],
)
def test_mistakes_are_named(tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    build(tmp_path, **fields)


def build(tmp_path, **fields) -> dict[str, evaluation.Evaluator]:
  videos = tmp_path / 'videos'
  for split in ('train', 'validation'):
    tiny_videos.folder(videos / split, ['0.mp4', '1.mp4'])
  config = make_config()
  config.data.update(source='folder', path=str(videos))
  config.evals.mine = dict(kind='reconstruction', every_steps=2) | fields
  task = tasks.build(config)
  workdir = epath.Path(tmp_path / 'run')
  return evaluation.build(config, task, put=put, num_devices=1, workdir=workdir)


def test_built_from_a_config_it_runs_with_a_real_model(tmp_path):
  evaluators = build(tmp_path, num_pictures=1)
  assert list(evaluators) == ['mine']
  evaluator = evaluators['mine']
  assert isinstance(evaluator, reconstruction.Evaluator)
  variables = jax.jit(evaluator.task.init)(jax.random.key(0))
  found = dict(evaluator.run(variables, 0))
  assert np.isfinite(found['psnr'])
  assert np.isfinite(found['loss'])
  where = pathlib.Path(tmp_path) / 'run' / 'reconstructions' / 'step_00000000'
  assert sorted(p.name for p in where.iterdir()) == [
    'clip_00.gif',
    'clip_00.png',
    'overview.png',
  ]
  visible = masking.num_visible('tube', 0.75, evaluator.task.model.grid)
  assert visible == 8
