import csv
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from tests.evaluation import tiny
from tests.tasks import configs
from vivit_mae import evaluation
from vivit_mae.data import decode, transforms
from vivit_mae.evaluation import multiview, scoring
from vivit_mae.tasks import metrics


def make_evaluator(
  workdir, source, task=None, num_devices=1, batch_size=4, **fields: Any
):
  return multiview.Evaluator(
    task=task or tiny.make_task(),
    source=source,
    data=configs.tiny().data.to_dict(),
    put=tiny.put_on(num_devices),
    num_devices=num_devices,
    workdir=epath.Path(workdir),
    batch_size=batch_size,
    **fields,
  )


def plain(task, variables, source, segments, crops, average='softmax'):
  """Probabilities of each video, by a loop over its views."""
  logits = jax.jit(task.logits)
  found = []
  for index in range(len(source)):
    # 12 frames of 32 x 40; clips of 4 frames, crops of 32 x 32.
    starts = [int(s * 8 / (segments - 1)) for s in range(segments)]
    lefts = [int(c * 8 / (crops - 1)) for c in range(crops)]
    rows = []
    for start in starts:
      for left in lefts:
        clip = decode.Clip(
          frames=np.arange(start, start + 4),
          size=(16, 16),
          box=transforms.Box(0, left, 32, 32),
          flip=False,
          antialias=True,
        )
        (pixels,) = decode.read_clips(
          source[index].video, lambda info, clip=clip: [clip], 'a video'
        )
        rows.append(logits(variables, pixels[None])['label'][0])
    if average == 'logits':
      found.append(tiny.softmax(np.mean(rows, axis=0, dtype=np.float64)))
    else:
      found.append(tiny.softmax(rows).mean(0))
  return np.array(found)


@pytest.mark.parametrize('average', scoring.AVERAGES)
def test_seven_videos_of_15_views_are_as_in_a_plain_loop(tmp_path, average):
  task, source = tiny.make_task(), tiny.source(7)
  variables = tiny.make_variables(task)
  expected = plain(task, variables, source, 5, 3, average)
  assert len({tuple(row.argsort()) for row in expected}) > 2
  # 105 views: batches of 4 on one device and of 8 on eight leave 1 over.
  for num_devices in (1, 8):
    evaluator = make_evaluator(
      tmp_path, source, task, num_devices, average=average
    )
    scores = evaluator.scores(variables)
    np.testing.assert_array_equal(scores.index, range(7))
    np.testing.assert_array_equal(scores.labels['label'], [0, 1, 2, 3, 4, 5, 0])
    found = scores.probabilities['label']
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    np.testing.assert_array_equal(found.argsort(), expected.argsort())


def test_an_evaluator_yields_and_writes(tmp_path):
  task, source = tiny.make_task(), tiny.source(7, bad=(3,))
  variables = tiny.make_variables(task)
  evaluator = make_evaluator(tmp_path, source, task, segments=2, crops=1)
  assert isinstance(evaluator, evaluation.Evaluator)
  found = dict(evaluator.run(variables, 12))
  assert found.keys() == {
    'loss', 'top1', 'top5', 'mean_class_accuracy', 'confusion'
  }  # fmt: skip
  scores = evaluator.scores(variables)
  np.testing.assert_array_equal(scores.index, [0, 1, 2, 4, 5, 6])
  numbers = metrics.summarise(scores)
  assert {k: found[k] for k in numbers} == numbers
  folder = tmp_path / 'predictions'
  assert {path.name for path in folder.iterdir()} == {
    'step_00000012.csv', 'step_00000012_confusion.png'
  }  # fmt: skip
  np.testing.assert_array_equal(
    np.asarray(Image.open(folder / 'step_00000012_confusion.png')),
    found['confusion'],
  )
  with open(folder / 'step_00000012.csv') as file:
    rows = list(csv.DictReader(file))
  assert [row['video'] for row in rows] == [
    '0.mp4', '1.mp4', '2.mp4', '4.mp4', '5.mp4', '6.mp4'
  ]  # fmt: skip
  right = np.mean([row['label'] == row['predicted'] for row in rows])
  assert right == pytest.approx(found['top1'])


def test_several_heads_and_several_labels(tmp_path):
  labels = [(i % 6, i % 2) for i in range(5)]
  task = tiny.make_task(tiny.HEADS)
  evaluator = make_evaluator(
    tmp_path, tiny.source(5, labels, tiny.HEADS), task, segments=1, crops=2
  )
  found = dict(evaluator.run(tiny.make_variables(task), 0))
  assert {'verb_top1', 'noun_top1', 'joint_top1', 'joint_top5'} <= found.keys()
  assert {'verb_confusion', 'noun_confusion'} <= found.keys()
  several = [(0,), (1, 2), (), (3, 4, 5), (0, 5)]
  task = tiny.make_task(multi_label=True)
  evaluator = make_evaluator(
    tmp_path / 'b', tiny.source(5, several, multi_label=True), task,
    segments=1, crops=1,
  )  # fmt: skip
  found = dict(evaluator.run(tiny.make_variables(task), 0))
  assert found.keys() == {'loss', 'mean_average_precision'}
  table = (tmp_path / 'b' / 'predictions' / 'step_00000000.csv').read_text()
  assert '3.mp4,d;e;f,' in table


def test_videos_without_labels_are_predicted_all_the_same(tmp_path):
  task = tiny.make_task((), model=dict(num_classes=3))
  evaluator = make_evaluator(
    tmp_path, tiny.source(3, [-1] * 3, ()), task, segments=1, crops=1
  )
  assert not dict(evaluator.run(tiny.make_variables(task), 0))
  files = list((tmp_path / 'predictions').iterdir())
  assert [path.name for path in files] == ['step_00000000.csv']


def test_fewer_videos_files_and_another_sampling(tmp_path):
  task, source = tiny.make_task(), tiny.source(5)
  variables = tiny.make_variables(task)
  fields: dict[str, Any] = dict(
    segments=2, crops=1, num_clips=3, predictions=''
  )
  evaluator = make_evaluator(tmp_path, source, task, confusion=False, **fields)
  assert dict(evaluator.run(variables, 0))
  assert not list(tmp_path.iterdir())
  usual = evaluator.scores(variables)
  np.testing.assert_array_equal(usual.index, range(3))
  np.testing.assert_array_equal(usual.labels['label'], [0, 2, 4])
  other = make_evaluator(
    tmp_path, source, task, sampling='segments', **fields
  ).scores(variables)
  assert not np.allclose(
    usual.probabilities['label'], other.probabilities['label'], rtol=1e-3
  )


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(average='mean'), "average 'mean' is unknown"),
    (dict(sampling='densely'), "sampling 'densely' is unknown"),
    (dict(predictions='xls'), "predictions 'xls' is unknown"),
    (dict(segments=0), 'segments is 0; it is at least 1'),
    (dict(source=tiny.source(2, class_names=('a', 'b'))), 'tiny has classes'),
  ],
)
def test_mistakes_are_named(tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    make_evaluator(tmp_path, **{'source': tiny.source(2)} | fields)
