"""Fifty small tasks, each with a right program and four wrong ones that differ from it in one place.

A task is a program, its tests and its mutations, between lines of dashes. Tests are asserts, or (stdin, stdout) for a
program that reads; a mutation is `what stands there => what stands there instead`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import NamedTuple

from flyweight.sandbox import Stdin, Test, asserts

__all__ = ["PROGRAMS", "Program"]

SOURCE = r"""
def f(a, b):
    while b:
        a, b = b, a % b
    return a
---
assert f(12, 18) == 6
assert f(17, 5) == 1
assert f(0, 5) == 5
---
a % b => a // b
while b => while a
return a => return b
b, a % b => b, b % a
=====
def f(n):
    return [p for p in range(2, n + 1) if all(p % d for d in range(2, int(p ** 0.5) + 1))]
---
assert f(20) == [2, 3, 5, 7, 11, 13, 17, 19]
assert f(1) == []
assert f(2) == [2]
---
n + 1 => n
int(p ** 0.5) + 1 => int(p ** 0.5)
all( => any(
range(2, n => range(1, n
=====
def f(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
---
assert f(0) == 0
assert f(10) == 55
assert f(90) == 2880067194370816120
---
0, 1 => 1, 1
range(n) => range(n - 1)
a + b => a * b
return a => return b
=====
def f(n):
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps
---
assert f(1) == 0
assert f(6) == 8
assert f(27) == 111
---
3 * n + 1 => n + 1
steps += 1 => steps += 2
n != 1 => n > 2
steps = 0 => steps = 1
=====
def f(n):
    out = ''
    for value, sign in (
        (1000, 'M'), (900, 'CM'), (500, 'D'), (400, 'CD'), (100, 'C'), (90, 'XC'), (50, 'L'), (40, 'XL'),
        (10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I'),
    ):
        out += sign * (n // value)
        n %= value
    return out
---
assert f(1994) == 'MCMXCIV'
assert f(58) == 'LVIII'
assert f(2444) == 'MMCDXLIV'
---
n %= value => n -= value
(90, 'XC'),  =>
n // value => n % value
(4, 'IV') => (4, 'VI')
=====
def f(s):
    letters = [c for c in s.lower() if c.isalnum()]
    return letters == letters[::-1]
---
assert f('A man, a plan, a canal: Panama')
assert not f('abca')
assert f('')
assert f('Aa') is True
---
.lower() =>
isalnum => isspace
== => !=
[::-1] => [1:]
=====
def f(words):
    groups = {}
    for w in words:
        groups.setdefault(''.join(sorted(w)), []).append(w)
    return [sorted(g) for g in groups.values()]
---
assert f(['tea', 'eat', 'tan', 'ate', 'nat', 'bat']) == [['ate', 'eat', 'tea'], ['nat', 'tan'], ['bat']]
assert f([]) == []
---
''.join(sorted(w)) => w
[sorted(g) for => [g for
sorted(w) => w[:1]
groups.values() => groups
=====
def f(text):
    counts = {}
    for word in text.lower().split():
        word = word.strip('.,!?')
        counts[word] = counts.get(word, 0) + 1
    return counts
---
assert f('The cat. The hat!') == {'the': 2, 'cat': 1, 'hat': 1}
assert f('') == {}
---
.lower() =>
.strip('.,!?') =>
+ 1 => + 2
(word, 0) => (word, 1)
=====
def f(s):
    out, i = [], 0
    while i < len(s):
        j = i
        while j < len(s) and s[j] == s[i]:
            j += 1
        out.append((s[i], j - i))
        i = j
    return out
---
assert f('aaabcc') == [('a', 3), ('b', 1), ('c', 2)]
assert f('') == []
---
j - i => j
(s[i], j - i) => [s[i], j - i]
s[j] == s[i] => s[j] >= s[i]
[], 0 => [], 1
=====
import re
def f(s):
    return re.sub(r'(\d+)(\w)', lambda m: m[2] * int(m[1]), s)
---
assert f('3a2b') == 'aaabb'
assert f('12x') == 'xxxxxxxxxxxx'
assert f('abc') == 'abc'
---
m[2] * => m[1] *
(\d+) => (\d)
int(m[1]) => (int(m[1]) + 1)
(\d+)(\w) => (\w)(\d+)
=====
def f(s, k):
    return ''.join(chr((ord(c) - 97 + k) % 26 + 97) if c.islower() else c for c in s)
---
assert f('abc xyz', 3) == 'def abc'
assert f('a', -1) == 'z'
assert f('A', 1) == 'A'
---
% 26 => % 25
+ k => - k
islower => isalpha
else c for => else '' for
=====
def f(s):
    return sum(c in 'aeiou' for c in s.lower())
---
assert f('Education') == 5
assert f('rhythm') == 0
---
aeiou => aeio
.lower() => .upper()
c in 'a => c not in 'a
sum => any
=====
def f(a, x):
    lo, hi = 0, len(a)
    while lo < hi:
        mid = (lo + hi) // 2
        if a[mid] < x:
            lo = mid + 1
        else:
            hi = mid
    return lo
---
assert f([1, 3, 5, 7], 4) == 2
assert f([2, 2, 2], 2) == 0
assert f([], 1) == 0
assert f([1, 2], 9) == 2
---
a[mid] < x => a[mid] <= x
len(a) => len(a) - 1
return lo => return lo + 1
lo, hi = 0 => lo, hi = 1
=====
def f(a):
    a = list(a)
    for i in range(1, len(a)):
        while i and a[i - 1] > a[i]:
            a[i - 1], a[i] = a[i], a[i - 1]
            i -= 1
    return a
---
assert f([3, 1, 2]) == [1, 2, 3]
assert f([2, 2, 1]) == [1, 2, 2]
assert f((5, -1)) == [-1, 5]
---
> a[i]: => < a[i]:
list(a) => list(set(a))
range(1, => range(2,
return a => return tuple(a)
=====
def f(a, b):
    out, a, b = [], list(a), list(b)
    while a and b:
        out.append(a.pop(0) if a[0] <= b[0] else b.pop(0))
    return out + a + b
---
assert f([1, 4], [2, 3]) == [1, 2, 3, 4]
assert f([], [1]) == [1]
assert f([1], []) == [1]
---
<= => >=
out + a + b => out + a
out + a + b => out
a and b => a or b
=====
def f(x):
    return [y for item in x for y in (f(item) if isinstance(item, list) else [item])]
---
assert f([1, [2, [3, []]], 4]) == [1, 2, 3, 4]
assert f([(1, 2)]) == [(1, 2)]
---
f(item) if => item if
item, list) => item, (list, tuple))
else [item] => else [item, item]
item, list) => item, int)
=====
def f(m):
    return [list(r) for r in zip(*m)]
---
assert f([[1, 2], [3, 4], [5, 6]]) == [[1, 3, 5], [2, 4, 6]]
assert f([]) == []
---
list(r) => r
zip(*m) => zip(m)
zip(*m) => m
zip(*m) => zip(*m[::-1])
=====
def f(a, b):
    return [[sum(x * y for x, y in zip(row, col)) for col in zip(*b)] for row in a]
---
assert f([[1, 2], [3, 4]], [[5, 6], [7, 8]]) == [[19, 22], [43, 50]]
assert f([[2]], [[3]]) == [[6]]
---
x * y => x + y
zip(*b) => b
sum( => max(
for row in a => for row in zip(*a)
=====
def f(n):
    row = [1]
    for k in range(n):
        row.append(row[-1] * (n - k) // (k + 1))
    return row
---
assert f(0) == [1]
assert f(4) == [1, 4, 6, 4, 1]
assert f(5) == [1, 5, 10, 10, 5, 1]
---
(n - k) => (n - k - 1)
(k + 1) => (k + 2)
range(n) => range(n + 1)
row = [1] => row = [2]
=====
def f(n):
    while n > 9:
        n = sum(map(int, str(n)))
    return n
---
assert f(38) == 2
assert f(10) == 1
assert f(999999) == 9
---
n > 9 => n > 10
while => if
sum( => max(
return n => return str(n)
=====
def f(n):
    return [d for d in range(1, n + 1) if n % d == 0]
---
assert f(12) == [1, 2, 3, 4, 6, 12]
assert f(7) == [1, 7]
---
n + 1 => n
range(1, => range(2,
== 0 => == 1
n % d => d % n
=====
def f(n, b):
    out = ''
    while n:
        n, r = divmod(n, b)
        out = '0123456789abcdef'[r] + out
    return out or '0'
---
assert f(255, 16) == 'ff'
assert f(0, 2) == '0'
assert f(6, 4) == '12'
---
out = '0123456789abcdef'[r] + out => out += '0123456789abcdef'[r]
or '0' => or ''
abcdef => ABCDEF
divmod(n, b) => divmod(n, 10)
=====
def f(a, b):
    return bin(a ^ b).count('1')
---
assert f(1, 4) == 2
assert f(7, 7) == 0
assert f(0, 255) == 8
---
^ => |
^ => &
'1' => '0'
bin => oct
=====
def f(s):
    stack = []
    for c in s:
        if c in '([{':
            stack.append(c)
        elif not stack or stack.pop() + c not in ('()', '[]', '{}'):
            return False
    return not stack
---
assert f('([]{})')
assert not f('([)]')
assert not f('(')
assert not f(')')
---
return not stack => return True
not stack or stack => stack
'{}') => '{]')
return False => return True
=====
def f(words):
    out = ''
    for letters in zip(*words):
        if len(set(letters)) > 1:
            break
        out += letters[0]
    return out
---
assert f(['flower', 'flow', 'flight']) == 'fl'
assert f(['abc', 'adc']) == 'a'
assert f(['same', 'same']) == 'same'
---
> 1 => > 2
break => continue
letters[0] => letters[0].upper()
zip(*words) => zip(*words[:1])
=====
def f(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]
---
assert f('ABCBDAB', 'BDCABA') == 4
assert f('abc', 'abc') == 3
assert f('ab', 'ba') == 1
---
before + 1 => before + 2
max( => min(
before = 0 => before = 1
row[-1] => row[0]
=====
def f(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(before + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]
---
assert f('kitten', 'sitting') == 3
assert f('abc', '') == 3
assert f('ba', 'b') == 1
---
x != y => x == y
row[j - 1] + 1 => row[j - 1] + 2
row[0], i => row[0], 0
row[j] + 1 => row[j] + 2
=====
def f(weights, values, room):
    best = [0] * (room + 1)
    for w, v in zip(weights, values):
        for r in range(room, w - 1, -1):
            best[r] = max(best[r], best[r - w] + v)
    return best[room]
---
assert f([1, 3, 4, 5], [1, 4, 5, 7], 7) == 9
assert f([2], [3], 4) == 3
assert f([2], [3], 2) == 3
assert f([1, 2], [5, 1], 2) == 5
---
room, w - 1, -1 => w, room + 1
max(best[r], best[r - w] + v) => best[r - w] + v
w - 1, => w,
+ v => + w
=====
def f(coins, total):
    ways = [1] + [0] * total
    for c in coins:
        for t in range(c, total + 1):
            ways[t] += ways[t - c]
    return ways[total]
---
assert f([1, 2, 5], 5) == 4
assert f([2], 3) == 0
assert f([5], 0) == 1
---
+= => =
total + 1 => total
[1] + => [2] +
range(c, => range(c + 1,
=====
from itertools import permutations
def f(s):
    return sorted({''.join(p) for p in permutations(s)})
---
assert f('aab') == ['aab', 'aba', 'baa']
assert f('') == ['']
---
sorted({''.join(p) for p in permutations(s)}) => sorted([''.join(p) for p in permutations(s)])
sorted => set
permutations(s) => permutations(s, 2)
''.join => '-'.join
=====
def f(items):
    out = [[]]
    for x in items:
        out += [s + [x] for s in out]
    return out
---
assert f([1, 2]) == [[], [1], [2], [1, 2]]
assert f([]) == [[]]
---
out += => out =
s + [x] => [x] + s
[[]] => []
return out => return out[1:]
=====
def f(n, a='A', b='B', c='C'):
    return f(n - 1, a, c, b) + [(a, c)] + f(n - 1, b, a, c) if n else []
---
assert f(2) == [('A', 'B'), ('A', 'C'), ('B', 'C')]
assert f(0) == []
---
(a, c)] => (c, a)]
a, c, b) => a, b, c)
if n else => if n > 1 else
[(a, c)] => [[a, c]]
=====
def f(n, row=0, cols=(), down=(), up=()):
    if row == n:
        return 1
    free = (c for c in range(n) if c not in cols and c - row not in down and c + row not in up)
    return sum(f(n, row + 1, (*cols, c), (*down, c - row), (*up, c + row)) for c in free)
---
assert f(4) == 2
assert f(5) == 10
assert f(3) == 0
---
 and c + row not in up =>
c not in cols and  =>
c - row not in down and  =>
return 1 => return 2
=====
def f(grid):
    left = {(i, j) for i, row in enumerate(grid) for j, x in enumerate(row) if x == '#'}
    count = 0
    while left:
        todo = [left.pop()]
        count += 1
        while todo:
            i, j = todo.pop()
            for near in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if near in left:
                    left.remove(near)
                    todo.append(near)
    return count
---
assert f(['##.', '..#', '#.#']) == 3
assert f(['#####']) == 1
assert f(['#', '#', '#', '#', '#']) == 1
---
x == '#' => x == '.'
(i + 1, j), (i - 1, j),  =>
count += 1 => count += 2
todo.append(near) => pass
=====
import heapq
def f(graph, start, goal):
    queue, seen = [(0, start)], set()
    while queue:
        cost, node = heapq.heappop(queue)
        if node == goal:
            return cost
        if node not in seen:
            seen.add(node)
            for other, step in graph.get(node, {}).items():
                heapq.heappush(queue, (cost + step, other))
    return -1
---
assert f({'a': {'b': 1, 'c': 4}, 'b': {'c': 2}}, 'a', 'c') == 3
assert f({'a': {}}, 'a', 'z') == -1
---
cost + step => step
return -1 => return 0
(0, start) => (1, start)
heapq.heappop(queue) => queue.pop()
=====
def f(needs):
    order, left = [], dict(needs)
    while left:
        ready = sorted(n for n, deps in left.items() if all(d in order for d in deps))
        if not ready:
            return None
        order += ready
        for n in ready:
            del left[n]
    return order
---
assert f({'c': ['b'], 'b': ['a'], 'a': []}) == ['a', 'b', 'c']
assert f({'x': ['y'], 'y': ['x']}) is None
assert f({'b': [], 'a': []}) == ['a', 'b']
---
return None => return []
all( => any(
sorted( => list(
order += ready => order = ready + order
=====
class Cache:
    def __init__(self, size):
        self.size, self.data = size, {}

    def get(self, key):
        if key not in self.data:
            return -1
        self.data[key] = self.data.pop(key)
        return self.data[key]

    def put(self, key, value):
        self.data.pop(key, None)
        self.data[key] = value
        if len(self.data) > self.size:
            del self.data[next(iter(self.data))]

def f(size, commands):
    cache = Cache(size)
    return [cache.get(*c) if len(c) == 1 else cache.put(*c) for c in commands]
---
assert f(2, [(1, 1), (2, 2), (1,), (3, 3), (2,), (1,)]) == [None, None, 1, None, -1, 1]
assert f(1, [(1, 1), (1, 2), (1,)]) == [None, None, 2]
---
> self.size => >= self.size
self.data[key] = self.data.pop(key) => pass
return -1 => return None
next(iter(self.data)) => list(self.data)[-1]
=====
n = int(input())
print(sum(map(int, input().split()[:n])))
---
('3\n1 2 3', '6')
('2\n5 -5', '0')
('1\n4 9', '4')
---
[:n] => [n:]
sum( => max(
[:n] =>
print(sum => print(1 + sum
=====
for i in range(1, int(input()) + 1):
    print('FizzBuzz' if i % 15 == 0 else 'Fizz' if i % 3 == 0 else 'Buzz' if i % 5 == 0 else i)
---
('5', '1\n2\nFizz\n4\nBuzz')
('15', '1\n2\nFizz\n4\nBuzz\nFizz\n7\n8\nFizz\nBuzz\n11\nFizz\n13\n14\nFizzBuzz\n')
---
i % 15 => i % 30
 + 1): => ):
i % 3 => i % 4
'Buzz' => 'buzz'
=====
import sys
lines = sys.stdin.read().splitlines()
print('\n'.join(line[::-1] for line in reversed(lines)))
---
('ab\ncd\n', 'dc\nba')
('one two', 'owt eno')
---
reversed(lines) => lines
line[::-1] => line
'\n'.join => ' '.join
[::-1] => [::-1].upper()
=====
counts = {}
try:
    while True:
        name, value = input().split()
        counts[name] = counts.get(name, 0) + int(value)
except EOFError:
    for name in sorted(counts):
        print(name, counts[name])
---
('b 2\na 1\nb 3', 'a 1\nb 5')
('z 0', 'z 0')
---
sorted(counts) => counts
+ int(value) => - int(value)
counts.get(name, 0) => 0
EOFError => ValueError
=====
def f(xs):
    m = sum(xs) / len(xs)
    return (sum((x - m) ** 2 for x in xs) / len(xs)) ** 0.5
---
import math
assert math.isclose(f([1, 2, 3, 4]), 1.118033988749895, rel_tol=1e-9)
assert abs(f([0, 10]) - 5) < 1e-9
assert f([5, 5]) == 0
---
** 0.5 => ** 1
x - m => x + m
/ len(xs)) => / (len(xs) - 1))
sum(xs) / len(xs) => max(xs)
=====
def f(x):
    guess = x or 1.0
    for _ in range(60):
        guess = (guess + x / guess) / 2
    return guess
---
assert round(f(2), 6) == 1.414214
for k in range(1, 4):
    assert abs(f(k * k) - k) < 1e-6
---
) / 2 => ) / 3
x / guess => guess / x
range(60) => range(1)
return guess => return int(guess)
=====
def f(xs, n):
    for i in range(0, len(xs), n):
        yield xs[i:i + n]
---
assert list(f([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
assert list(f('abc', 3)) == ['abc']
---
i + n => i + n - 1
range(0, => range(1,
yield => return
len(xs), n => len(xs), n + 1
=====
def f(a, b):
    return set(a) ^ set(b)
---
assert f([1, 2, 3], [2, 3, 4]) == {1, 4}
assert f('ab', 'ab') == set()
---
^ => |
^ => &
^ => -
set(a) ^ set(b) => sorted(set(a) ^ set(b))
=====
def compose(*functions):
    def run(x):
        for function in reversed(functions):
            x = function(x)
        return x
    return run

def f(x):
    return compose(lambda v: v + 1, lambda v: v * 2)(x)
---
assert f(3) == 7
assert f(0) == 1
---
reversed(functions) => functions
v * 2 => v * 3
x = function(x) => function(x)
v + 1 => v - 1
=====
from datetime import date
def f(y, m, d):
    return (date(y, m, d) - date(y, 1, 1)).days + 1
---
assert f(2024, 12, 31) == 366
assert f(2023, 3, 1) == 60
---
 + 1 =>
date(y, 1, 1) => date(y, 2, 1)
m, d) - => m, 1) -
.days => .seconds
=====
def f(a, b):
    try:
        return a // b
    except ZeroDivisionError:
        return None
    except TypeError:
        return 'bad'
---
assert f(7, 2) == 3
assert f(1, 0) is None
assert f(1, 'x') == 'bad'
---
// => /
None => 0
TypeError => KeyError
'bad' => 'Bad'
=====
def f(data):
    a, b = 1, 0
    for byte in data:
        a = (a + byte) % 65521
        b = (b + a) % 65521
    return b << 16 | a
---
assert f(b'Wikipedia') == 300286872
assert f(b'') == 1
---
1, 0 => 0, 0
<< 16 => << 15
b + a => b + byte
| a => | b
=====
def f(a, m):
    old, new, s, t = a, m, 1, 0
    while new:
        q = old // new
        old, new, s, t = new, old - q * new, t, s - q * t
    return s % m if old == 1 else None
---
assert f(3, 11) == 4
assert f(10, 17) == 12
assert f(2, 4) is None
---
s % m if => s if
1, 0 => 0, 1
s - q * t => s + q * t
else None => else 0
"""


class Program(NamedTuple):
    """A task: what is right, what is not, and what tells them apart."""

    right: str
    mutants: tuple[str, ...]
    tests: Sequence[Test]


def _program(text: str) -> Program:
    right, tests, mutations = (part.strip("\n") for part in text.split("---\n"))
    mutants = []
    for mutation in mutations.split("\n"):
        there, _, instead = mutation.partition(" =>")
        assert right.count(there) == 1, (there, right)
        mutants.append(right.replace(there, instead.removeprefix(" ")))
    pairs = [Stdin(*ast.literal_eval(line)) for line in tests.split("\n") if line.startswith("(")]
    return Program(right, tuple(mutants), pairs or asserts(tests))


PROGRAMS = tuple(map(_program, SOURCE.split("=====\n")))
