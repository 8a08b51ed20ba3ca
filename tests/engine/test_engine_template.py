"""Chat templates: rendered as their models expect, and harmless when they are not."""

from __future__ import annotations

import time

import pytest

from flyweight.errors import ModelError
from flyweight.policies.llamacpp.template import ChatTemplate
from flyweight.types import Message
from tests import tiny
from tests.template_payloads import HOSTILE

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


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_in_one_line(name: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        ChatTemplate(HOSTILE[name]).render(TURNS)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert time.perf_counter() - started < 20  # a hang guard; alone each takes well under a second
