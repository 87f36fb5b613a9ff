import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tests.data import tiny_videos
from tests.evaluation import tiny
from tests.tasks import configs
from tests.tasks.test_mae import tiny_config
from vivit_mae import evaluation, tasks
from vivit_mae.evaluation import knn, multiview
from vivit_mae.models import vivit


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Two classes, which differ in their tint; split into three."""
  root = tmp_path_factory.mktemp('videos')
  for split, count in (('train', 4), ('validation', 3), ('test', 2)):
    names = [f'{split}/{c}/{i}.mp4' for c in 'ab' for i in range(count)]
    tiny_videos.folder(root, names)
  return root


def build(videos, tmp_path, config, **evals):
  config.data.update(source='folder', path=str(videos))
  for name, fields in evals.items():
    config.evals[name] = fields
  task = tasks.build(config, class_names=('a', 'b'))
  found = evaluation.build(
    config,
    task,
    put=lambda batch: {k: jnp.asarray(v) for k, v in batch.items()},
    num_devices=1,
    workdir=epath.Path(tmp_path),
  )
  return task, found


def test_evaluators_are_built_by_kind_for_a_split(videos, tmp_path):
  task, found = build(
    videos,
    tmp_path,
    configs.tiny(),
    quick=dict(kind='accuracy', every_steps=1),
    final=dict(kind='multiview', split='test', segments=2, crops=1),
    near=dict(kind='knn', depths=(1, 2)),
  )
  assert set(found) == {'quick', 'final', 'near'}
  final = found['final']
  assert isinstance(final, multiview.Evaluator)
  assert len(final.source) == 4
  variables = make_variables(task)
  for evaluator in found.values():
    numbers = dict(evaluator.run(variables, 0))
    assert 0 <= numbers['top1'] <= 1


def make_variables(task):
  return jax.jit(task.init)(jax.random.key(0))


def test_knn_looks_at_pretraining_and_at_depths(videos, tmp_path):
  config = tiny_config(model=dict(image_size=(16, 16)))
  config.data.stride = 1
  task, found = build(
    videos, tmp_path, config, near=dict(kind='knn', k=1, depths=(1, 2))
  )
  near = found['near']
  assert isinstance(near, knn.Evaluator)
  variables = make_variables(task)
  numbers = dict(near.run(variables, 0))
  assert numbers.keys() == {
    f'{prefix}{name}'
    for prefix in ('', 'block_01_', 'block_02_')
    for name in ('loss', 'top1', 'mean_class_accuracy')
  }
  # The held-out videos lie in the training set too: each is its own nearest.
  numbers = dict(
    build(videos, tmp_path, config, near=dict(kind='knn', k=1, split='train'))[
      1
    ]['near'].run(variables, 0)
  )
  assert numbers['top1'] == 1
  few = dict(
    build(
      videos, tmp_path, config,
      near=dict(kind='knn', k=1, num_clips=2, num_train_clips=2),
    )[1]['near'].run(variables, 0)
  )  # fmt: skip
  assert few['top1'] in (0, 0.5, 1)


def test_depths_are_the_mean_tokens_after_a_block():
  task = tiny.make_task(('a', 'b'))
  variables = make_variables(task)
  video = np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 3), np.uint8)
  found = knn.embed(task, (1, 2), variables, jnp.asarray(video))
  assert found.keys() == {'pooled', 'block_01', 'block_02'}
  assert {x.shape for x in found.values()} == {(3, 16)}
  inputs = task.inputs(jnp.asarray(video))
  output = task.model.apply(variables, inputs, deterministic=True)
  assert isinstance(output, vivit.ClassifierOutput)
  np.testing.assert_allclose(
    found['pooled'],
    output.features,
    rtol=1e-5,
  )
  # VideoMAE's classifier has its norm behind the mean of the last block.
  x = np.asarray(found['block_02'], np.float64)
  x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(found['pooled'], x, atol=1e-4)


@pytest.mark.parametrize(
  ('make', 'fields', 'message'),
  [
    (
      configs.tiny,
      dict(kind='acuracy'),
      r"evals\.mine\.kind is 'acuracy'; known kinds: \['accuracy', 'knn'",
    ),
    (
      configs.tiny,
      dict(kind='multiview', segment=3),
      r"evals\.mine: .*'segment'",
    ),
    (configs.tiny, dict(kind='knn', k=0), r'evals\.mine: k is 0'),
    (
      configs.tiny,
      dict(kind='knn', depths=(3,)),
      r'evals\.mine: depths are \(3,\): the encoder has the blocks 1 to 2',
    ),
    (
      configs.tiny,
      dict(kind='reconstruction'),
      r"'reconstruction' needs config\.task='mae', not 'classify'",
    ),
    (
      tiny_config,
      dict(kind='multiview'),
      r"'multiview' needs config\.task='classify', not 'mae'",
    ),
  ],
)
def test_mistakes_are_named(videos, tmp_path, make, fields, message):
  with pytest.raises(ValueError, match=message):
    build(videos, tmp_path, make(), mine=fields)
