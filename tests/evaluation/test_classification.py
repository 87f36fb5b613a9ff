import jax
import numpy as np
import pytest
from etils import epath

from tests.evaluation import tiny
from tests.tasks import configs
from vivit_mae import evaluation
from vivit_mae.data import pipeline
from vivit_mae.evaluation import classification
from vivit_mae.tasks import metrics


def make_evaluator(source, task=None, num_devices=1, **fields):
  return classification.Evaluator(
    task=task or tiny.make_task(),
    source=source,
    data=configs.tiny().data.to_dict(),
    put=tiny.put_on(num_devices),
    num_devices=num_devices,
    workdir=epath.Path('unused'),
    batch_size=4,
    **fields,
  )


def test_numbers_are_those_of_the_middle_clips():
  task, source = tiny.make_task(), tiny.source(7, bad=(2,))
  variables = tiny.make_variables(task)
  classify = jax.jit(task.logits)
  probabilities, labels = [], []
  for batch in pipeline.eval_iterator(
    source, configs.tiny().data.to_dict(), num_frames=4, image_size=(16, 16),
    batch_size=1,
  ):  # fmt: skip
    if batch['valid'][0]:
      logits = classify(variables, batch['video'])['label'][0]
      probabilities.append(tiny.softmax(logits))
      labels.append(batch['label'][0])
  expected = metrics.summarise(
    metrics.Scores(
      np.arange(6),
      {'label': np.array(probabilities)},
      {'label': np.array(labels)},
    )
  )
  assert set(expected) == {'loss', 'top1', 'top5', 'mean_class_accuracy'}
  for num_devices in (1, 8):
    evaluator = make_evaluator(source, task, num_devices)
    assert isinstance(evaluator, evaluation.Evaluator)
    found = dict(evaluator.run(variables, 3))
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_few_videos_are_enough_where_asked():
  task = tiny.make_task()
  variables = tiny.make_variables(task)
  few = dict(
    make_evaluator(tiny.source(7), task, num_clips=2).run(variables, 0)
  )
  labels = [0, 0]  # videos 0 and 6
  source = tiny.source(7)
  source.examples = [source[0], source[6]]
  assert [example.label for example in source.examples] == labels
  assert few == dict(make_evaluator(source, task).run(variables, 0))


def test_mistakes_are_named():
  with pytest.raises(ValueError, match=r"'label': 2.*'label': 6"):
    make_evaluator(tiny.source(2, class_names=('a', 'b')))
