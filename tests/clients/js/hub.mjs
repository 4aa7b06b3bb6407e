// Lists, reads and downloads a repo with @huggingface/hub and prints what it saw.
// Arguments: the mirror's address, the cache folder, the repo.
import { createHash } from "node:crypto";
import { downloadFile, fileExists, listFiles, modelInfo, pathsInfo, snapshotDownload } from "@huggingface/hub";

const [hubUrl, cacheDir, repo] = process.argv.slice(2);
console.debug = () => {};
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

const listed = {};
const downloaded = {};
for await (const file of listFiles({ hubUrl, repo, recursive: true })) {
  if (file.type !== "file") continue;
  listed[file.path] = file.size;
  const blob = await downloadFile({ hubUrl, repo, path: file.path });
  downloaded[file.path] = sha256(Buffer.from(await blob.arrayBuffer()));
}
const info = await modelInfo({ hubUrl, name: repo, additionalFields: ["sha"] });
const paths = await pathsInfo({ hubUrl, repo, paths: ["config.json"], expand: true });
const snapshot = await snapshotDownload({ hubUrl, repo, cacheDir });
console.log(
  JSON.stringify({
    listed,
    downloaded,
    sha: info.sha,
    lastCommit: paths[0].lastCommit.id,
    snapshot,
    hasConfig: await fileExists({ hubUrl, repo, path: "config.json" }),
    hasNothing: await fileExists({ hubUrl, repo, path: "no-such-file.json" }),
    missing: await downloadFile({ hubUrl, repo, path: "no-such-file.json" }),
  }),
);
