// Builds the viewer's bundle into the Python package: node build.mjs (after npm ci). Equal sources give equal bytes.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";

const here = import.meta.dirname;
const out = join(here, "..", "flyweight", "viewer", "assets");
mkdirSync(out, { recursive: true });

// Fonts travel inside the style sheets, as WOFF2 alone; faces that mathematics of school and contests never uses stay out.
const RARE = /KaTeX_(Fraktur|SansSerif|Script|Typewriter)/;
const fonts = {
  name: "fonts",
  setup(b) {
    b.onLoad({ filter: /katex\.min\.css$/ }, ({ path }) => ({
      loader: "css",
      contents: readFileSync(path, "utf8")
        .replace(/@font-face\{[^}]*\}/g, (face) => (RARE.test(face) ? "" : face))
        .replace(/,url\([^)]*\.(woff|ttf)\) format\("[a-z]+"\)/g, ""),
    }));
  },
};

const common = {
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2022"],
  charset: "utf8",
  legalComments: "none",
  loader: { ".woff2": "dataurl" },
  plugins: [fonts],
  logLevel: "warning",
};
await build({ ...common, entryPoints: [join(here, "src", "main.js")], outfile: join(out, "page.js") });
await build({ ...common, entryPoints: [join(here, "src", "style.css")], outfile: join(out, "page.css") });
await build({ ...common, entryPoints: [join(here, "src", "maths.js")], outfile: join(out, "maths.js") });
await build({ ...common, entryPoints: [join(here, "src", "maths.css")], outfile: join(out, "maths.css") });

const sha256 = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");
const sources = readdirSync(here, { recursive: true })
  .filter((name) => /^(build\.mjs|package(-lock)?\.json|src[/\\].*\.(js|css))$/.test(name))
  .map((name) => name.replaceAll("\\", "/"))
  .sort();
const built = ["maths.css", "maths.js", "page.css", "page.js"];

// What the bundle is made of besides our own code, with its licence.
const packages = Object.entries(JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8")).packages)
  .filter(([path, what]) => path.startsWith("node_modules/") && !what.dev && path !== "node_modules/commander")
  .map(([path]) => {
    const folder = join(here, path);
    const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^(licen[cs]e|copying)/i.test(entry));
    return `${name} ${version} (${license})\n\n${file ? readFileSync(join(folder, file), "utf8").trim() : ""}\n`;
  });
writeFileSync(join(out, "LICENSES.txt"), packages.join(`\n${"-".repeat(80)}\n\n`));

writeFileSync(
  join(out, "built.json"),
  JSON.stringify(
    {
      sources: Object.fromEntries(sources.map((name) => [name, sha256(join(here, name))])),
      files: Object.fromEntries(built.map((name) => [name, sha256(join(out, name))])),
    },
    null,
    1,
  ) + "\n",
);
for (const name of built) console.log(name, readFileSync(join(out, name)).length);
