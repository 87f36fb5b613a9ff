import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae.training import naming, sharding, transfer


def block(number):
  shapes = {'mlp/kernel': (4, 8), 'mlp/bias': (8,), 'norm/scale': (4,)}
  return {
    f'encoder/block_{number:02d}/{name}': np.full(shape, number + 1.0)
    for name, shape in shapes.items()
  }


def pretrained(depth=12):
  """The parameters of a masked autoencoder by name."""
  arrays = {
    'encoder/embedding/kernel': np.full((2, 4, 4, 3, 4), 0.5),
    'encoder/embedding/bias': np.full((4,), 0.25),
    'encoder/position_embedding': np.arange(32.0).reshape(1, 8, 4),
    'encoder/norm/scale': np.ones((4,)),
    'encoder/norm/bias': np.ones((4,)),
    'decoder/block_00/mlp/kernel': np.ones((2, 2)),
    'decoder/head/kernel': np.ones((2, 6)),
    'mask_token': np.ones((1, 1, 2)),
  }
  for number in range(depth):
    arrays |= block(number)
  return arrays


def classifier(depth=12, tokens=8):
  """Those of a classifier, all zero."""
  arrays = {
    name: array
    for name, array in pretrained(depth).items()
    if name.startswith('encoder/') and '/norm/bias' not in name
  }
  arrays['encoder/position_embedding'] = np.ones((1, tokens, 4))
  arrays['head/kernel'] = np.ones((4, 10))
  arrays['head/bias'] = np.ones((10,))
  return {name: np.zeros_like(array) for name, array in arrays.items()}


def repeat(name, saved, wanted):
  """A fake of the task's resizing of position tables."""
  assert isinstance(saved, np.ndarray)
  if 'position' not in name:
    return None
  return np.repeat(saved, wanted[1] // saved.shape[1], 1)


def test_the_encoder_goes_into_a_classifier_and_the_rest_is_said():
  saved, fresh = pretrained(), classifier()
  params, report = transfer.transfer(saved, fresh)
  assert params.keys() == fresh.keys()
  for name, value in params.items():
    source = fresh if name.startswith('head/') else saved
    np.testing.assert_array_equal(value, source[name])
  assert report.names('resized') == []
  assert report.names('fresh') == ['head/bias', 'head/kernel']
  assert report.names('dropped') == [
    'encoder/norm/bias',
    'decoder/block_00/mlp/kernel',
    'decoder/head/kernel',
    'mask_token',
  ]
  assert report.summary == (
    'loaded 40 of the 42 parameter arrays (0 of them resized); 2 fresh, 4 of '
    'the checkpoint dropped'
  )


def test_the_table_has_a_line_per_module():
  _, report = transfer.transfer(
    pretrained(), classifier(tokens=16), adapt=repeat
  )
  lines = [' '.join(line.split()) for line in report.table().splitlines()]
  assert lines == [
    'module arrays numbers weights',
    'encoder/block_00-11 36 528 loaded',
    'encoder/embedding 2 388 loaded',
    'encoder/norm/bias 1 4 dropped not in this model',
    'encoder/norm/scale 1 4 loaded',
    'encoder/position_embedding 1 64 resized (1, 8, 4) -> (1, 16, 4)',
    'head 2 50 fresh not in the checkpoint',
    'decoder 2 16 dropped not in this model',
    'mask_token 1 2 dropped not in this model',
  ]
  columns = {line.index('arrays') for line in report.table().splitlines()[:1]}
  assert len(columns) == 1


def test_a_deeper_model_keeps_what_the_checkpoint_lacks():
  params, report = transfer.transfer(pretrained(4), classifier(6))
  assert np.all(params['encoder/block_03/mlp/kernel'] == 4)
  assert np.all(params['encoder/block_04/mlp/kernel'] == 0)
  table = ' '.join(report.table().split())
  assert 'encoder/block_00-03 12 176 loaded' in table
  assert 'encoder/block_04-05 6 88 fresh not in the checkpoint' in table
  assert (
    '1.23 M'
    in transfer.Report((transfer.Entry('w', 'loaded', '', 1_234_567),)).table()
  )


def test_a_table_of_positions_is_resized():
  params, _ = transfer.transfer(
    pretrained(), classifier(tokens=16), adapt=repeat
  )
  np.testing.assert_array_equal(
    params['encoder/position_embedding'],
    np.repeat(pretrained()['encoder/position_embedding'], 2, 1),
  )
  with pytest.raises(ValueError, match=r'adapted to \(1, 8, 4\), not \(1, 12,'):
    transfer.transfer(pretrained(), classifier(tokens=12), adapt=repeat)


@pytest.mark.parametrize('adapt', [None, repeat])
def test_a_shape_that_nobody_can_adapt_is_an_error(adapt):
  saved = {**pretrained(), 'head/kernel': np.ones((4, 400))}
  with pytest.raises(
    ValueError,
    match=r'head/kernel is \(4, 400\) there and \(4, 10\) here.*from.skip',
  ):
    transfer.transfer(saved, classifier(), adapt=adapt)
  params, report = transfer.transfer(
    saved, classifier(), adapt=adapt, skip=('head/.*',)
  )
  assert not params['head/kernel'].any()
  assert 'left out by config.init_from.skip' in report.table()
  with pytest.raises(ValueError, match=r"skip: 'neck/\.\*' matches none"):
    transfer.transfer(saved, classifier(), skip=('neck/.*',))


def test_a_wrong_checkpoint_is_refused_with_the_names_of_both_sides():
  saved = {f'Transformer/encoderblock_{i}/w': np.ones(2) for i in range(20)}
  with pytest.raises(ValueError, match='No parameter has the same') as error:
    transfer.transfer(saved, classifier())
  text = str(error.value)
  assert 'checkpoint has Transformer/encoderblock_0/w, ' in text
  assert 'and 12 more; this model has encoder/block_00/mlp/bias, ' in text


def test_weights_land_on_the_devices_of_the_model():
  mesh = sharding.make_mesh(1, 8)
  fresh = naming.unflat(classifier(2, tokens=16))
  fresh = jax.tree.map(lambda x: x.astype(np.float32), fresh)
  where = sharding.shardings(fresh, mesh, 0)
  fresh = jax.device_put(fresh, where)
  saved = pretrained(2)
  asked = {}

  def read(item):
    """As Orbax does, onto the devices if a sharding says which."""
    asked.update(naming.flat(item))
    return naming.unflat(
      {
        name: saved[name]
        if leaf.sharding is None
        else jax.device_put(jnp.asarray(saved[name], leaf.dtype), leaf.sharding)
        for name, leaf in asked.items()
      }
    )

  params, report = transfer.load(
    fresh,
    transfer.Weights('a file', naming.shapes(saved), read),
    adapt=repeat,
  )
  same = jax.tree.map(
    lambda x, s: x.sharding == s and x.dtype == jnp.float32, params, where
  )
  assert all(jax.tree.leaves(same))
  table = params['encoder']['position_embedding']
  assert table.sharding.spec == jax.sharding.PartitionSpec(None, 'fsdp')
  np.testing.assert_array_equal(
    table, np.repeat(saved['encoder/position_embedding'], 2, 1)
  )
  np.testing.assert_array_equal(
    params['encoder']['block_01']['mlp']['kernel'], 2.0
  )
  # Nothing is read that is not used.
  used = {*report.names('loaded'), *report.names('resized')}
  assert asked.keys() == used
