"""Chat templates: rendered as their models expect, and harmless when they are not."""

from __future__ import annotations

import time

import pytest

from flyweight.errors import ModelError
from flyweight.policies.llamacpp.template import LONGEST_SOURCE, ChatTemplate
from flyweight.types import Message
from tests import tiny

TURNS = (Message("system", "Be brief."), Message("user", " hi\n\nthere "), Message("assistant", "ok"))


def test_chatml_by_hand() -> None:
    text = ChatTemplate(tiny.TEMPLATE).render(TURNS)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n hi\n\nthere <|im_end|>\n"
        "<|im_start|>assistant\nok<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_templates_in_the_wild_use() -> None:
    source = """
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim + '!' %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- set ns = namespace(last=0, text='') %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- set ns.last = loop.index %}
    {%- set ns.text = ns.text ~ message.role ~ ':' ~ loop.length ~ (',' if not loop.last else '.') %}
    {%- if loop.first %}{% continue %}{% endif %}
    {%- if message.content is string and 'ok' in message.content %}{{ message['content'].split('o')[-1] }}{% endif %}
{%- endfor %}
{%- macro wrap(x, n=2) %}[{{ x | upper }}{{ n }}]{% endmacro %}
{{- bos_token + system + ns.text + wrap(ns.last | string) + ({'a': [1, 'é']} | tojson) + strftime_now('%%')
    + ('x' * 3) + (messages | map(attribute='role') | join('/')) }}
{%- if add_generation_prompt %}>{% endif -%}
"""
    text = ChatTemplate(source, bos="<s>").render(TURNS)
    assert text == 'k<s>Be brief.!user:2,assistant:2.[22]{"a": [1, "é"]}%xxxuser/assistant>'
    with pytest.raises(ModelError, match="roles must alternate"):
        ChatTemplate(source).render((Message("assistant", "ok"),))


def test_without_a_template() -> None:
    assert ChatTemplate("").render(TURNS[:2]) == "Be brief.\n\n hi\n\nthere \n\n"


def growing(value: str, start: str = "'aa'", rounds: int = 60) -> str:
    """A loop that replaces n.x by `value` again and again."""
    head = "{% set n = namespace(x=" + start + ") %}{% for i in range(" + str(rounds) + ") %}"
    return head + "{% set n.x = " + value + " %}{% endfor %}{{ n.x }}"


HOSTILE = {
    "class walk": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals walk": "{{ raise_exception.__globals__['__builtins__'] }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "cycler globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "joiner": "{{ joiner.__init__.__globals__ }}",
    "lipsum": "{{ lipsum.__globals__ }}",
    "self": "{{ self.__init__.__globals__ }}",
    "namespace": "{{ namespace.__init__.__globals__ }}",
    "format string": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "format width": "{{ '{:>999999999}'.format('x') }}",
    "format filter": "{{ '%999999999d'|format(1) }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "mutation": "{{ messages.append(1) }}",
    "long range": "{% for i in range(10**9) %}x{% endfor %}",
    "many rounds": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "repeat": "{{ 'a' * 1000000000 }}",
    "repeat list": "{{ [0] * 1000000000 }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "square": growing("n.x * n.x", "9"),
    "doubling": growing("n.x + n.x"),
    "tilde": growing("n.x ~ n.x"),
    "lists": growing("n.x + n.x", "[1]"),
    "replace": growing("n.x|replace('a', 'aa')"),
    "replace method": growing("n.x.replace('a', n.x)"),
    "join": growing("[n.x, n.x]|join(n.x)"),
    "join method": growing("n.x.join([n.x, n.x])"),
    "block": "{% set n = namespace(x='aa') %}{% for i in range(60) %}"
    "{% set y %}{{ n.x }}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}",
    "macro recursion": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "macro tree": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "recursive loop": "{% for x in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "center": "{{ 'x'.center(1000000000) }}",
    "center filter": "{{ 'x'|center(1000000000) }}",
    "zfill": "{{ 'x'.zfill(1000000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "indent": "{{ 'x'|indent(1000000000) }}",
    "big output": "{% for i in range(90000) %}{{ 'a' * 9999 }}{% endfor %}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as x %}",
    "list of range": "{{ range(10**9)|list }}",
    "translate": "{{ 'aaaa'.translate({97: 'a' * 4000000}).translate({97: 'a' * 4000000}) }}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "json depth": growing("[n.x]|tojson|list", rounds=5000),
    "json of shared lists": growing("[n.x, n.x]").replace("{{ n.x }}", "{{ n.x|tojson }}"),
    "shared lists": growing("[n.x, n.x]"),
    "shared lists as string": growing("[n.x, n.x]").replace("{{ n.x }}", "{{ n.x|string }}"),
    "nested": growing("[n.x]", rounds=5000),
    "huge source": "x" * (LONGEST_SOURCE + 1),
    "syntax": "{% if %}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_in_one_line(name: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        text = ChatTemplate(HOSTILE[name]).render(TURNS)
        # Jinja renders what it refuses to look up as nothing: harmless too.
        assert text.strip() == ""
        raise ModelError("nothing came of it")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert time.perf_counter() - started < 20  # a hang guard; alone each takes well under a second
