// Bundles the page into dist/: annotate.js, annotate.css, index.html and the notices of the libraries in it.
import { build } from "esbuild";
import { copyFile, mkdir, rm } from "node:fs/promises";

await rm("dist", { recursive: true, force: true });
await mkdir("dist");
await build({
  entryPoints: { annotate: "src/main.ts" },
  outdir: "dist",
  bundle: true,
  format: "esm",
  target: ["chrome110", "firefox115", "safari16.4"],
  minify: true,
  legalComments: "none", // NOTICES.txt holds them
  loader: { ".png": "dataurl" },
  logLevel: "warning",
});
for (const file of ["index.html", "NOTICES.txt", "icon.svg"]) await copyFile(file, `dist/${file}`);
