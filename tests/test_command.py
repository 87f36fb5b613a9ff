from vivit_mae import command


def test_split_argv_takes_the_fields_out():
  others, overrides = command.split_argv(
    [
      '--config=a.py',
      '--config.mask.ratio=0.5',
      '--config.model.scan',
      '--workdir=w',
      '-config.data.path',
      '/a b=c',
      '--config.mesh.data',
      '-1',
      '--config.data.flip',
    ]
  )
  assert others == ['--config=a.py', '--workdir=w']
  assert overrides == [
    ('mask.ratio', '0.5'),
    ('model.scan', 'true'),
    ('data.path', '/a b=c'),
    ('mesh.data', '-1'),
    ('data.flip', 'true'),
  ]
