"""Chat templates that attack whoever renders them, by name; the benchmark of the server counts them too."""

from __future__ import annotations

from flyweight.policies.llamacpp.template import LONGEST_SOURCE

__all__ = ["HOSTILE"]


def growing(value: str, start: str = "'aa'", rounds: int = 60) -> str:
    """A loop that replaces n.x by `value` again and again."""
    head = "{% set n = namespace(x=" + start + ") %}{% for i in range(" + str(rounds) + ") %}"
    return head + "{% set n.x = " + value + " %}{% endfor %}{{ n.x }}"


HOSTILE = {
    "class": "{{ ''.__class__ }}",
    "private": "{{ messages[0]['content']._private }}{{ raise_exception.__code__ }}",
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
