// Where the nodes of a tree stand. flyweight/viewer/drawing.py computes the same for notebooks.

/**
 * Rows and depths: leaves on consecutive rows in the order drawn, a parent in the middle of its first and last child.
 * Returns {rows, depth, place: Map key → {row, depth}}.
 */
export function layout(roots) {
  const place = new Map();
  let rows = 0;
  let depth = 0;
  // No recursion: a path may be thousands of steps long.
  for (const root of roots) {
    const stack = [[root, 0, 0]];
    while (stack.length) {
      const top = stack[stack.length - 1];
      const [node, level, next] = top;
      depth = Math.max(depth, level);
      if (next < node.children.length) {
        top[2] += 1;
        stack.push([node.children[next], level + 1, 0]);
        continue;
      }
      stack.pop();
      const first = place.get(node.children[0]?.key);
      const last = place.get(node.children.at(-1)?.key);
      place.set(node.key, { row: first ? (first.row + last.row) / 2 : rows++, depth: level });
    }
  }
  return { rows, depth, place };
}
