import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks import configs
from vivit_mae import preprocess, tasks
from vivit_mae.models import vivit
from vivit_mae.tasks import classify

NAMES = ('a', 'b', 'c')


def make_task(class_names=NAMES, multi_label=False, **sections):
  config = configs.tiny(**sections)
  task = tasks.build(config, class_names=class_names, multi_label=multi_label)
  assert isinstance(task, classify.Classification)
  return task


def make_batch(rows=4, label=(0, 1, 2, 1), seed=0):
  rng = np.random.default_rng(seed)
  video = rng.integers(0, 256, (rows, 4, 16, 16, 3), np.uint8)
  return {
    'video': jnp.asarray(video),
    'label': jax.tree.map(jnp.asarray, label)
    if isinstance(label, dict)
    else jnp.asarray(label),
    'valid': jnp.ones(rows, bool),
  }


def row_keys(rows=4, seed=0):
  return jax.random.split(jax.random.key(seed), rows)


def init(task):
  """Variables whose head tells clips apart."""
  variables = jax.jit(task.init)(jax.random.key(1))
  head = variables['params']['head']
  for name in task.heads:
    head[name]['kernel'] *= 0.5 / head[name]['kernel'].std()
  return variables


def run(task, variables, batch, keys=None):
  keys = row_keys(len(batch['valid'])) if keys is None else keys
  loss, (metrics, mutated) = jax.jit(task.loss)(variables, batch, keys)
  numbers = {name: float(x) for name, x in metrics.compute().items()}
  return float(loss), numbers, mutated


def apply(task, variables, inputs):
  """The model's logits of clips that are normalised already."""
  output = task.model.apply(variables, inputs, deterministic=True)
  assert isinstance(output, vivit.ClassifierOutput)
  return output.logits['label']


def softmax_loss(logits, targets):
  logits = np.asarray(logits, np.float64)
  shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  return -(targets * np.log(shares)).sum(-1)


def test_a_task_fits_the_contract():
  assert isinstance(make_task(), tasks.Task)


def test_loss_is_the_cross_entropy_of_the_normalised_clips():
  task = make_task()
  variables, batch = init(task), make_batch()
  loss, metrics, mutated = run(task, variables, batch)
  assert mutated == {}
  video = np.asarray(batch['video'], np.float64) / 255
  video = (video - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  logits = apply(task, variables, jnp.asarray(video, jnp.float32))
  expected = softmax_loss(logits, np.eye(3)[batch['label']])
  np.testing.assert_allclose(loss, expected.mean(), rtol=1e-4)
  right = np.argmax(np.asarray(logits), -1) == np.asarray(batch['label'])
  assert metrics == pytest.approx(
    {'loss': expected.mean(), 'accuracy': right.mean()}, rel=1e-4
  )
  np.testing.assert_allclose(
    task.logits(variables, batch['video'])['label'], logits, atol=1e-5
  )


def test_smoothing_moves_the_target():
  batch = make_batch()
  task = make_task(classify=dict(smoothing=0.3))
  variables = init(task)
  logits = task.logits(variables, batch['video'])['label']
  targets = 0.7 * np.eye(3)[batch['label']] + 0.1
  loss, _, _ = run(task, variables, batch)
  np.testing.assert_allclose(
    loss, softmax_loss(logits, targets).mean(), rtol=1e-4
  )


def test_several_labels_have_a_sigmoid_each():
  label = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 1]], np.float32)
  task = make_task(multi_label=True)
  variables, batch = init(task), make_batch(label=label)
  logits = np.asarray(task.logits(variables, batch['video'])['label'])
  shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
  expected = label * np.log(shares) + (1 - label) * np.log(1 - shares)
  loss, metrics, _ = run(task, variables, batch)
  np.testing.assert_allclose(loss, -expected.sum(1).mean(), rtol=1e-4)
  assert list(metrics) == ['loss']


def test_the_loss_of_several_heads_is_their_mean():
  task = make_task(class_names={'verb': NAMES, 'noun': ('x', 'y')})
  assert task.heads == {'verb': 3, 'noun': 2}
  label = {
    'verb': np.array([0, 1, 2, 1]),
    'noun': np.array([1, 1, 0, -1]),
  }
  variables, batch = init(task), make_batch(label=label)
  logits = task.logits(variables, batch['video'])
  verb = softmax_loss(logits['verb'], np.eye(3)[label['verb']]).mean()
  noun = softmax_loss(logits['noun'], np.eye(2)[label['noun']])[:3].mean()
  loss, metrics, _ = run(task, variables, batch)
  np.testing.assert_allclose(loss, (verb + noun) / 2, rtol=1e-4)
  assert metrics.keys() == {
    'loss', 'verb_loss', 'noun_loss', 'verb_accuracy', 'noun_accuracy'
  }  # fmt: skip
  assert metrics['noun_loss'] == pytest.approx(noun, rel=1e-4)


@pytest.mark.parametrize('recipe', [{}, dict(smoothing=0.1)])
@pytest.mark.parametrize('multi_label', [False, True])
def test_rows_that_do_not_count_count_nowhere(recipe, multi_label):
  task = make_task(classify=recipe, multi_label=multi_label)
  label = np.array([0, 1, 2, -1])
  if multi_label:
    label = np.where(label[:, None] < 0, -1.0, np.eye(3)[label]).astype('f4')
  batch = make_batch(label=label)
  variables = init(task)
  two = jax.tree.map(lambda x: x[:2], batch)
  expected, metrics, _ = run(task, variables, two, row_keys()[:2])
  batch['valid'] = jnp.array([True, True, False, True])
  loss, padded, _ = run(task, variables, batch)
  assert loss == pytest.approx(expected, rel=1e-5)
  assert padded == pytest.approx(metrics, rel=1e-5)
  batch['valid'] = jnp.zeros(4, bool)
  loss, metrics, _ = run(task, variables, batch)
  assert loss == 0
  assert all(value == 0 for value in metrics.values())
  grads, _ = jax.jit(jax.grad(task.loss, has_aux=True))(
    variables, batch, row_keys()
  )
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_mixing_is_what_preprocess_does():
  task = make_task(classify=dict(smoothing=0.1, mix=dict(mixup=0.8)))
  variables, batch = init(task), make_batch()
  loss, metrics, _ = run(task, variables, batch)
  assert list(metrics) == ['loss']  # which label would be right?
  targets = preprocess.soft_targets(batch['label'], 3, 0.1)
  keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys(), 2)
  video, mixed = preprocess.mix(
    task.inputs(batch['video']), {'label': targets}, keys, mixup=0.8, cutmix=0
  )
  logits = apply(task, variables, video)
  expected = softmax_loss(logits, np.asarray(mixed['label'])).mean()
  assert loss == pytest.approx(expected, rel=1e-4)
  plain, _, _ = run(make_task(classify=dict(smoothing=0.1)), variables, batch)
  assert loss != pytest.approx(plain, rel=1e-3)


def test_what_is_blended_with_a_row_that_does_not_count_does_not_either():
  task = make_task(classify=dict(mix=dict(mixup=0.8)))
  variables, batch = init(task), make_batch()
  batch['valid'] = jnp.array([False, True, True, True])
  loss, _, _ = run(task, variables, batch)
  # Row 3 is the partner of row 0; with nothing else changed 1 and 2 remain.
  batch['video'] = batch['video'].at[jnp.array([0, 3])].set(7)
  changed, _, _ = run(task, variables, batch)
  assert changed == pytest.approx(loss, rel=1e-5)


def test_erasing_changes_the_loss_of_some_rows():
  batch = make_batch()
  task = make_task(classify=dict(erase=dict(probability=1.0)))
  variables = init(task)
  erased, _, _ = run(task, variables, batch)
  plain, _, _ = run(make_task(), variables, batch)
  assert erased != pytest.approx(plain, rel=1e-3)
  again, _, _ = run(task, variables, batch)
  assert erased == again


def gradient_norms(task, batch):
  variables = init(task)
  params = variables.pop('params')

  def loss(params):
    return task.loss({'params': params, **variables}, batch, row_keys())[0]

  grads = jax.jit(jax.grad(loss))(params)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.abs(x).max()
    for path, x in jax.tree.leaves_with_path(grads)
  }


@pytest.mark.parametrize(
  'fields', [{}, dict(head='attentive'), dict(probe_batch_norm=True)]
)
def test_a_probe_trains_the_head_alone(fields):
  batch = make_batch()
  frozen = gradient_norms(make_task(model=dict(probe=True, **fields)), batch)
  trained = gradient_norms(make_task(model=fields), batch)
  assert frozen.keys() == trained.keys()
  for name, norm in frozen.items():
    if name.startswith('head/'):
      assert norm == pytest.approx(trained[name], rel=1e-3, abs=1e-7)
    else:
      assert norm == 0
  assert any(
    trained[name] > 0 for name in trained if not name.startswith('head/')
  )


def test_a_probe_names_the_parameters_that_stay():
  import re

  task = make_task(model=dict(probe=True))
  (pattern,) = task.frozen
  params = jax.eval_shape(task.init, jax.random.key(0))['params']
  for path, _ in jax.tree.leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    found = re.fullmatch(pattern, name) is not None
    assert found == name.startswith('encoder/')
  assert make_task().frozen == ()


def test_batch_statistics_are_mutated_in_training_alone():
  task = make_task(model=dict(probe=True, probe_batch_norm=True))
  variables, batch = init(task), make_batch()
  before = jax.tree.map(np.asarray, variables['batch_stats'])
  _, _, mutated = run(task, variables, batch)
  assert jax.tree.structure(mutated) == jax.tree.structure(
    {'batch_stats': before}
  )
  moved = jax.tree.map(
    lambda a, b: bool(np.any(a != b)), mutated['batch_stats'], before
  )
  assert all(jax.tree.leaves(moved))
  usual = task.logits(variables, batch['video'])['label']
  other = task.logits({**variables, **mutated}, batch['video'])['label']
  assert not np.allclose(usual, other)


def test_rows_follow_their_keys_and_nothing_else():
  task = make_task(
    model=dict(drop_path=0.5, head_dropout=0.5),
    classify=dict(erase=dict(probability=0.5)),
  )
  variables, batch = init(task), make_batch(label=(1, 1, 1, 1))
  batch['video'] = jnp.broadcast_to(batch['video'][:1], batch['video'].shape)

  loss = jax.jit(task.loss)

  def per_row(keys):
    rows = [batch | {'valid': jnp.arange(4) == row} for row in range(4)]
    return np.array([loss(variables, one, keys)[0] for one in rows])

  losses = per_row(row_keys())
  assert len(set(losses.round(6))) == 4
  np.testing.assert_allclose(per_row(row_keys()[::-1]), losses[::-1], rtol=1e-5)


def test_layers_count_from_the_embedding_to_the_head():
  task = make_task()
  assert task.num_layers == 2
  params = jax.eval_shape(task.init, jax.random.key(0))['params']
  layers = {}
  for path, _ in jax.tree.leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    layers.setdefault(task.layer_of(name), set()).add(
      '/'.join(name.split('/')[:2])
    )
  assert layers == {
    0: {'encoder/embedding'},
    1: {'encoder/block_00'},
    2: {'encoder/block_01'},
    3: {'head/norm', 'head/label'},
  }


def test_learned_tables_are_adapted_to_the_grid():
  task = make_task(
    model=dict(positions='learned_1d', position_grid=(1, 2, 2), num_frames=8)
  )
  saved = np.arange(8.0).reshape(4, 2)
  name = 'encoder/position_embedding'
  found = task.adapt(name, saved, (16, 2))
  assert found is not None
  np.testing.assert_allclose(found, np.tile(saved, (4, 1)))
  assert task.adapt('head/label/kernel', saved, (16, 2)) is None


@pytest.mark.parametrize('count', [None, 3])
def test_classes_are_those_of_the_data_or_of_the_config(count):
  assert make_task(model=dict(num_classes=count)).heads == {'label': 3}
  assert make_task((), model=dict(num_classes=5)).heads == {'label': 5}


@pytest.mark.parametrize(
  ('names', 'sections', 'message'),
  [
    ((), {}, r'the data has no labels.*config\.model\.num_classes'),
    (NAMES, dict(model=dict(num_classes=4)), 'num_classes is 4.* 3 classes'),
    (
      {'verb': NAMES, 'noun': NAMES},
      dict(model=dict(num_classes=4)),
      r"heads \{'verb': 3, 'noun': 3\}: leave it None",
    ),
    (NAMES, dict(classify=dict(smoothing=1.5)), r'smoothing is 1\.5'),
    (NAMES, dict(classify=dict(mix=dict(mixup=-1.0))), 'mixup is -1'),
    (
      NAMES,
      dict(classify=dict(erase=dict(probability=2.0))),
      'erasing probability is 2',
    ),
    (NAMES, dict(model=dict(head='attntive')), "'attntive'"),
    (NAMES, dict(model=dict(image_size=(15, 16))), 'image_size height 15'),
    (NAMES, dict(preprocess=dict(mean=(0.5, 0.5))), r'mean holds 2 values'),
  ],
)
def test_impossible_fields_are_named_from_the_start(names, sections, message):
  with pytest.raises(ValueError, match=message):
    make_task(names, **sections)


def test_flops_are_what_xla_counts():
  task = make_task(
    model=dict(
      image_size=(64, 64), width=128, heads=4, mlp_dim=512, attention='xla'
    )
  )
  task = dataclasses.replace(task, model=task.model.clone(scan=False))
  variables = jax.eval_shape(task.init, jax.random.key(0))
  assert isinstance(task.model, vivit.ViViT)
  video = jax.ShapeDtypeStruct((1, 4, 64, 64, 3), jnp.uint8)
  cost = jax.jit(task.logits).lower(variables, video).compile().cost_analysis()
  assert cost
  assert 0.85 < task.flops_per_clip() / cost['flops'] <= 1
