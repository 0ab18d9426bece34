"The names that a newcomer imports, their help, the session in the package's docstring, and `python -m agentfastbook`."
import doctest
import inspect
import pydoc
import rlcompleter
import subprocess
import sys
from pathlib import Path

import agentfastbook
import pytest
from conftest import ROOT
import house


def python(code): return subprocess.run([sys.executable, *code], text=True, capture_output=True, cwd=ROOT)


def test_importing_takes_less_than_a_tenth_of_a_second():
    done = python(['-c', 'import time; start = time.perf_counter(); import agentfastbook; print(time.perf_counter()-start)'])
    assert float(done.stdout) < .1, done.stderr


def test_a_whole_session(tmp_path, monkeypatch):
    "The docstring's session does what it says."
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(agentfastbook).failed == 0
    assert (tmp_path/'afb_out'/'dataset.json').exists()
    session = [line for line in agentfastbook.__doc__.splitlines() if line.startswith('    ')]
    assert len(session) <= 10


def test_every_name_is_there_and_no_module_bears_it():
    for name in agentfastbook.__all__: assert callable(getattr(agentfastbook, name))
    assert not {name.split('.')[-1] for name in house.modules(ROOT)} & {*agentfastbook.__all__}
    with pytest.raises(AttributeError, match="no attribute 'curates'"): agentfastbook.curates


@pytest.mark.parametrize('name', agentfastbook.__all__)
def test_help_shows_what_each_parameter_is(name):
    thing = getattr(agentfastbook, name)
    text = pydoc.render_doc(thing, renderer=pydoc.plaintext)
    function = thing.__init__ if inspect.isclass(thing) else thing
    for parameter in inspect.signature(function).parameters:
        if parameter not in ('self', 'seed'): assert f'    {parameter}: ' in text


def test_help_of_the_package_and_completion():
    text = pydoc.render_doc(agentfastbook, renderer=pydoc.plaintext)
    assert 'agentfastbook - Curate retrieval datasets' in text and 'curate(book' in text
    assert set(agentfastbook.__all__) <= set(dir(agentfastbook))
    offered = rlcompleter.Completer(dict(agentfastbook=agentfastbook)).attr_matches('agentfastbook.cur')
    assert [word.rstrip('(') for word in offered] == ['agentfastbook.curate']


def test_the_package_is_typed(): assert (Path(agentfastbook.__file__).parent/'py.typed').exists()


def test_the_package_is_the_command():
    assert python(['-m', 'agentfastbook', '--version']).stdout == f'agentfastbook {agentfastbook.__version__}\n'


def test_exporting_keeps_the_face(tmp_path):
    from nbdev.export import update_version
    (tmp_path/'__init__.py').write_text(Path(agentfastbook.__file__).read_text(encoding='utf-8'), encoding='utf-8')
    update_version(tmp_path)
    assert (tmp_path/'__init__.py').read_text(encoding='utf-8') == Path(agentfastbook.__file__).read_text(encoding='utf-8')
