// Reads a downloaded repo back from the cache alone with @huggingface/hub: its fetch always fails.
// Arguments: the cache folder, the repo, the commit, then the paths to read.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { downloadFileToCacheDir, scanCacheDir } from "@huggingface/hub";

const [cacheDir, repo, revision, ...paths] = process.argv.slice(2);
const fetch = () => {
  throw new Error("the network was asked");
};
const files = {};
for (const path of paths) {
  const place = await downloadFileToCacheDir({ repo, path, revision, cacheDir, fetch });
  files[path] = createHash("sha256").update(await readFile(place)).digest("hex");
}
const { repos } = await scanCacheDir(cacheDir);
console.log(JSON.stringify({ files, refs: repos.flatMap((kept) => kept.revisions.flatMap(({ refs }) => refs)) }));
