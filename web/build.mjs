// Bundles the page into dist/: annotate.js, annotate.css and index.html. No library is part of it.
import { build } from "esbuild";
import { copyFile, mkdir, rename, rm } from "node:fs/promises";

// A build that fails leaves the one before.
const made = "dist.new";
await rm(made, { recursive: true, force: true });
await mkdir(made);
await build({
  entryPoints: { annotate: "src/main.ts" },
  outdir: made,
  bundle: true,
  format: "esm",
  target: ["chrome110", "firefox115", "safari16.4"],
  minify: true,
  logLevel: "warning",
});
for (const file of ["index.html", "icon.svg"]) await copyFile(file, `${made}/${file}`);
await rm("dist", { recursive: true, force: true });
await rename(made, "dist");
