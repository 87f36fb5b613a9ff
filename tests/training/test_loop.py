import json
import logging
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from tests.training import fakes as test_fakes
from vivit_mae import evaluation, tasks
from vivit_mae.training import loop


def lines(workdir) -> list[dict]:
  text = (pathlib.Path(workdir) / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def losses(workdir) -> dict[int, float]:
  found = lines(workdir)
  steps = [line['step'] for line in found]
  assert len(set(steps)) == len(steps)
  return {line['step']: line['loss'] for line in found}


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def run(config, workdir, *overrides, signal_=0, step=-1):
  return subprocess.run(
    [
      *(sys.executable, '-m', 'tests.training.killed'),
      *(str(config), str(workdir), str(int(signal_)), str(step)),
      *overrides,
    ],
    capture_output=True,
    text=True,
    timeout=300,
    cwd=pathlib.Path(__file__).parents[2],
    check=False,
    start_new_session=True,
  )


class FakeEvaluator:
  def __init__(self):
    self.steps = []

  def run(self, variables, step):
    self.steps.append(step)
    yield 'size', float(len(jax.tree.leaves(variables)))
    yield 'odd', abs(step - 3.0)
    yield 'picture', np.zeros((4, 6, 3), np.uint8)


@pytest.fixture
def fake(monkeypatch):
  """Replaces the task by one that compiles in no time."""

  def use(**options):
    def build(config, **labels):
      del labels
      for section in (config.model, config.mask):
        section.to_dict()
      return test_fakes.FakeTask(**options)

    monkeypatch.setattr(tasks, 'build', build)

  use()
  return use


@pytest.fixture(scope='module')
def straight(experiment, tmp_path_factory):
  """Folder, losses and final state of a run that nothing interrupts."""
  workdir = tmp_path_factory.mktemp('straight')
  ended = run(experiment, workdir)
  assert ended.returncode == 0, ended.stderr
  return workdir, losses(workdir), final(workdir)


def final(workdir) -> list[np.ndarray]:
  with np.load(workdir / 'final.npz') as arrays:
    return [arrays[name] for name in arrays.files]


def test_a_run_learns_and_leaves_what_it_should(straight):
  workdir, values, _ = straight
  assert list(values) == list(range(1, 9))
  assert values[8] < values[1]
  config = json.loads((workdir / 'config.json').read_text())
  assert config['model']['width'] == 24
  table = (workdir / 'parameters.txt').read_text()
  assert 'mask_token' in table
  line = lines(workdir)[2]
  assert {
    'learning_rate',
    'l2_grads',
    'l2_params',
    'l2_updates',
    'clips_per_second',
    'data_wait',
  } < line.keys()
  np.testing.assert_allclose(line['learning_rate'], 0.03 * 8 / 256)
  steps = {p.name for p in (workdir / 'checkpoints').iterdir()}
  assert steps == {'6', '8'}


def test_a_finished_run_does_nothing_more(straight, tiny, caplog):
  caplog.set_level(logging.INFO)
  workdir, values, state = straight
  again = loop.train_and_evaluate(tiny(), workdir)
  assert_equal(jax.tree.leaves(again), state)
  assert losses(workdir) == values
  assert 'weights: this workdir, step 8' in caplog.text
  shorter = loop.train_and_evaluate(tiny(total_steps=4), workdir)
  assert int(shorter.step) == 8
  assert 'nothing to do' in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
  ('before', 'after', 'step'), [(0, 0, 5), (2, 2, 6), (2, 0, 3)]
)
def test_killed_and_started_again_is_bitwise_the_same(
  straight, experiment, tmp_path, before, after, step
):
  ended = run(
    experiment,
    tmp_path,
    f'data.num_workers={before}',
    signal_=signal.SIGKILL,
    step=step,
  )
  assert ended.returncode == -signal.SIGKILL, ended.stderr
  assert max(losses(tmp_path)) == step
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 99, "lo')
  ended = run(experiment, tmp_path, f'data.num_workers={after}')
  assert ended.returncode == 0, ended.stderr
  assert losses(tmp_path) == straight[1]
  assert_equal(final(tmp_path), straight[2])


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(straight, experiment, tmp_path, number):
  rare = 'checkpoint.every_steps=100'
  ended = run(experiment, tmp_path, rare, signal_=number, step=3)
  assert ended.returncode == 128 + number, ended.stderr
  assert 'Traceback' not in ended.stderr
  assert f'{number.name} at step' in ended.stderr
  saved = [p.name for p in (tmp_path / 'checkpoints').iterdir()]
  assert saved in (['3'], ['4'])
  ended = run(experiment, tmp_path, rare)
  assert ended.returncode == 0, ended.stderr
  assert 'weights: this workdir' in ended.stderr
  assert losses(tmp_path) == straight[1]
  assert_equal(final(tmp_path), straight[2])


@pytest.mark.slow
def test_a_signal_to_the_workers_too_saves_and_leaves(
  straight, experiment, tmp_path
):
  overrides = ('checkpoint.every_steps=100', 'data.num_workers=1')
  ended = run(experiment, tmp_path, *overrides, signal_=-signal.SIGTERM, step=3)
  assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
  assert 'Traceback' not in ended.stderr
  ended = run(experiment, tmp_path, *overrides)
  assert ended.returncode == 0, ended.stderr
  assert losses(tmp_path) == straight[1]
  assert_equal(final(tmp_path), straight[2])


@pytest.mark.parametrize('norms', [True, False])
def test_nan_stops_and_leaves_the_last_good_checkpoint(
  fake, tiny, tmp_path, norms
):
  fake(breaks=2e-3)
  with pytest.raises(loop.DivergedError, match=r'step \d: loss is nan') as e:
    loop.train_and_evaluate(tiny(log__norms=norms), tmp_path)
  assert 'config.optimizer.learning_rate' in str(e.value)
  failed = int(str(e.value).split(':')[0].split()[1])
  steps = [int(p.name) for p in (tmp_path / 'checkpoints').iterdir()]
  assert failed > 2
  assert max(steps) == (failed - 1) // 2 * 2
  fake()
  state = loop.train_and_evaluate(tiny(), tmp_path)
  assert int(state.step) == 8
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
  assert list(losses(tmp_path)) == list(range(1, 9))


def test_norms_can_be_left_out_and_failures_are_still_not_saved(
  fake, tiny, tmp_path
):
  fake()
  loop.train_and_evaluate(tiny(), tmp_path / 'with')
  loop.train_and_evaluate(tiny(log__norms=False), tmp_path / 'without')
  assert losses(tmp_path / 'without') == losses(tmp_path / 'with')
  assert 'l2_grads' in lines(tmp_path / 'with')[0]
  assert 'l2_grads' not in lines(tmp_path / 'without')[0]
  # The loss of step 2 is from before its update.
  config = tiny(log__norms=False, optimizer__learning_rate=1e30)
  with pytest.raises(loop.DivergedError, match='step 2: l2_params is inf'):
    loop.train_and_evaluate(config, tmp_path / 'inf')
  assert not list((tmp_path / 'inf' / 'checkpoints').glob('[0-9]*'))


def test_evaluators_run_before_saving_and_choose_the_best(
  fake, tiny, tmp_path, monkeypatch
):
  fakes = []

  def build(config, task, *, put, num_devices, workdir):
    assert num_devices == 8
    assert config.evals.fake.kind == 'fake'
    fakes.append(FakeEvaluator())
    return {'fake': fakes[-1]}

  monkeypatch.setattr(evaluation, 'build', build)
  config = tiny(
    evals=dict(fake=dict(kind='fake', every_steps=3)),
    checkpoint__best_metric='fake/odd',
    checkpoint__keep_last=1,
    checkpoint__every_steps=4,
    log__tensorboard=True,
  )
  loop.train_and_evaluate(config, tmp_path)
  assert fakes[0].steps == [3, 6, 8]
  found = {x['step']: x['fake/odd'] for x in lines(tmp_path) if 'fake/odd' in x}
  assert found == {3: 0, 6: 3, 8: 5}
  # 3 was saved because it was the best, and kept.
  assert {p.name for p in (tmp_path / 'checkpoints').iterdir()} == {'3', '8'}
  assert list(tmp_path.glob('events.out.tfevents*'))

  config.checkpoint.best_metric = 'fak/odd'
  with pytest.raises(ValueError, match=r"best_metric='fak/odd'.*are: fake"):
    loop.train_and_evaluate(config, tmp_path)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'batch_size': 12}, r'12 clips .* multiple of 8'),
    ({'accum_steps': 4}, r'8 devices x 4 accumulation'),
    ({'mesh__data': 3}, r'config\.mesh: .* 8 devices'),
    ({'data__path': '/nowhere'}, '/nowhere'),
    ({'optimizer__schedule': 'linear'}, 'cosine, warmup_cosine'),
  ],
)
def test_mistakes_are_named_before_anything_runs(
  fake, tiny, tmp_path, overrides, message
):
  with pytest.raises(ValueError, match=message):
    loop.train_and_evaluate(tiny(**overrides), tmp_path)


def test_too_many_bad_videos_stop_the_run_with_their_list(fake, tiny, tmp_path):
  videos = tmp_path / 'videos'
  shutil.copytree(tiny().data.path, videos)
  for number in range(0, 12, 2):
    (videos / f'{number}.mp4').write_bytes(b'no video')
  with pytest.raises(ValueError, match=r'max_bad_fraction.*bad_videos\.csv'):
    loop.train_and_evaluate(tiny(data__path=str(videos)), tmp_path / 'run')
  listed = (tmp_path / 'run' / 'bad_videos.csv').read_text().splitlines()
  assert listed[0] == 'id,reason'
  assert '0.mp4' in ''.join(listed)
  names = {thread.name for thread in threading.enumerate()}
  assert 'prefetch' not in names


def test_batches_ahead_change_nothing(fake, tiny, tmp_path):
  """Nor where the data stands in a checkpoint, with others fetched already."""
  found = {}
  for ahead in (0, 3):
    workdir = tmp_path / str(ahead)
    loop.train_and_evaluate(tiny(data__device_prefetch=ahead), workdir)
    found[ahead] = losses(workdir)
  saved = str(tmp_path / '3' / 'checkpoints' / '6')
  loop.train_and_evaluate(tiny(resume=saved), tmp_path / 'rest')
  rest = losses(tmp_path / 'rest')
  assert list(rest) == [7, 8]
  # Over several devices sums differ in their last bits.
  for step, loss in found[0].items():
    np.testing.assert_allclose(found[3][step], loss, rtol=1e-5)
  for step, loss in rest.items():
    np.testing.assert_allclose(loss, found[0][step], rtol=1e-5)


def test_a_trace_is_written(fake, tiny, tmp_path):
  config = tiny(profile__start_step=1, profile__num_steps=1)
  loop.train_and_evaluate(config, tmp_path)
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))
