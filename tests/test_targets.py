import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae import targets
from vivit_mae.models import tubelets


def _golden_video():
  # reference: videomae.md 2.1, a torch array [1, 3, 16, 32, 32]
  x = np.sin(0.37 * np.arange(3 * 16 * 32 * 32, dtype=np.float64))
  x = x.astype(np.float32).reshape(1, 3, 16, 32, 32)
  return jnp.asarray(x.transpose(0, 2, 3, 4, 1))


def _random_video(shape=(2, 4, 16, 24, 3), seed=0):
  return jax.random.uniform(jax.random.key(seed), shape)


def test_golden_numbers_of_videomae():
  got = np.asarray(targets.build(tubelet=(2, 16, 16)).target(_golden_video()))
  assert got.shape == (1, 32, 1536)
  np.testing.assert_allclose(
    got[0, 0, :6],
    [-0.0040, -1.3136, -0.9640, 0.5072, -1.0369, -1.2711],
    atol=6e-5,
  )
  np.testing.assert_allclose(
    got[0, -1, -3:], [-1.4111, -0.5329, 1.0201], atol=6e-5
  )
  np.testing.assert_allclose(
    np.abs(got.astype(np.float64)).sum(), 44208.7734, rtol=1e-5
  )


def test_golden_numbers_of_mae_st():
  target = targets.build(
    tubelet=(2, 16, 16), normalise='patch', frames='linspace'
  )
  got = np.asarray(target.target(_golden_video()))
  assert got.shape == (1, 32, 768) == (1, 32, target.dim)
  np.testing.assert_allclose(
    got[0, 0, :6],
    [0.0027, -1.3113, -0.9647, 0.5137, -1.0343, -1.2718],
    atol=6e-5,
  )
  np.testing.assert_allclose(
    got[0, -1, -3:], [-1.4131, -0.5296, 1.0228], atol=6e-5
  )
  np.testing.assert_allclose(
    np.abs(got.astype(np.float64)).sum(), 22111.9311, rtol=1e-5
  )


@pytest.mark.parametrize(
  ('frames', 'expected'),
  [
    ('all', list(range(16))),
    ('one', [0, 2, 4, 6, 8, 10, 12, 14]),
    ('linspace', [0, 2, 4, 6, 8, 10, 12, 15]),
  ],
)
def test_predicted_frames(frames, expected):
  target = targets.build(tubelet=(2, 16, 16), frames=frames)
  assert target.frame_indices(16).tolist() == expected


def test_one_token_along_time_predicts_the_first_frame():
  target = targets.build(tubelet=(16, 8, 8), frames='linspace')
  assert target.frame_indices(16).tolist() == [0]


def test_each_convention_by_hand():
  video = _random_video((1, 2, 4, 4, 3))
  values = np.asarray(video, np.float64).reshape(-1, 3)
  options = {'tubelet': (2, 4, 4), 'epsilon': 0.1}
  channel = targets.build(normalise='channel', **options).target(video)
  np.testing.assert_allclose(
    channel.reshape(-1, 3),
    (values - values.mean(0)) / (values.std(0, ddof=1) + 0.1),
    atol=1e-5,
  )
  patch = targets.build(normalise='patch', **options).target(video)
  np.testing.assert_allclose(
    patch.reshape(-1, 3),
    (values - values.mean()) / np.sqrt(values.var(ddof=1) + 0.1),
    atol=1e-5,
  )
  raw = targets.build(normalise='none', **options).target(video)
  np.testing.assert_array_equal(raw.reshape(-1, 3), video.reshape(-1, 3))


@pytest.mark.parametrize('frames', targets.FRAMES)
@pytest.mark.parametrize('normalise', targets.NORMALISATIONS)
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_inverse_gives_the_pixels_back(normalise, frames, channels):
  video = _random_video((2, 4, 16, 24, channels))
  target = targets.build(
    tubelet=(2, 8, 8), channels=channels, normalise=normalise, frames=frames
  )
  pixels = target.invert(target.target(video), *target.statistics(video))
  again = tubelets.unpatchify(pixels, (2, 2, 3), target.patch)
  np.testing.assert_allclose(
    again, video[:, target.frame_indices(4)], atol=1e-6
  )


def test_inverse_with_one_statistic_for_a_whole_clip_stays_in_range():
  video = _random_video()
  target = targets.build(tubelet=(2, 8, 8))
  mean, std = target.statistics(video)
  pixels = target.invert(
    3 * target.target(video),
    mean.mean(1, keepdims=True),
    std.mean(1, keepdims=True),
  )
  assert pixels.min() == 0.0
  assert pixels.max() == 1.0


@pytest.mark.parametrize('normalise', targets.NORMALISATIONS)
def test_tokens_can_be_picked_first(normalise):
  video = _random_video()
  target = targets.build(tubelet=(2, 8, 8), normalise=normalise)
  indices = jnp.array([[0, 3, 11], [1, 2, 10]])
  every = target.target(video)
  np.testing.assert_allclose(
    target.target(video, indices),
    tubelets.gather_tokens(every, indices),
    atol=1e-6,
  )
  mean, _ = target.statistics(video, indices)
  assert mean.shape == (2, 3, 3 if normalise == 'channel' else 1)


def test_a_flat_patch_is_finite():
  video = jnp.full((1, 2, 8, 8, 3), 0.5)
  for normalise in ('channel', 'patch'):
    target = targets.build(tubelet=(2, 8, 8), normalise=normalise)
    assert (target.target(video) == 0).all()


def test_half_precision_video_is_standardised_in_float32():
  got = targets.build(tubelet=(2, 8, 8)).target(
    _random_video().astype(jnp.bfloat16)
  )
  assert got.dtype == jnp.float32


def test_errors_say_what_would_do():
  with pytest.raises(ValueError, match=r"'pixel' is unknown.*'pixels'"):
    targets.build('pixel', tubelet=(2, 8, 8))
  with pytest.raises(ValueError, match=r"'chanel' is unknown.*'channel'"):
    targets.build(tubelet=(2, 8, 8), normalise='chanel')
  with pytest.raises(ValueError, match=r"'first' is unknown.*'one'"):
    targets.build(tubelet=(2, 8, 8), frames='first')
  target = targets.build(tubelet=(2, 8, 8))
  with pytest.raises(ValueError, match='4 channels, the target 3'):
    target.target(_random_video((1, 4, 8, 8, 4)))
  with pytest.raises(ValueError, match='image_size width 12'):
    target.target(_random_video((1, 4, 8, 12, 3)))
