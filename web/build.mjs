// Bundles the page into dist/: annotate.js, annotate.css and index.html. No library is part of it.
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
  logLevel: "warning",
});
for (const file of ["index.html", "icon.svg"]) await copyFile(file, `dist/${file}`);
