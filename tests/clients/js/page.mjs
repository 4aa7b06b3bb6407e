// In a page of another origin: loads a tokenizer and a pipeline with @huggingface/transformers, loads the tokenizer
// again from the browser's cache alone, reads the repo with @huggingface/hub, and posts what it saw to /report.
// The page's query names the mirror's address (host), the repo and a sentence.
const asked = new URLSearchParams(location.search);
const [hubUrl, repo, sentence] = ["host", "repo", "sentence"].map((name) => asked.get(name));

async function transformers() {
  const { AutoTokenizer, env, pipeline } = await import("@huggingface/transformers");
  env.remoteHost = hubUrl;
  env.allowLocalModels = false;
  env.backends.onnx.wasm.wasmPaths = `${location.origin}/node_modules/onnxruntime-web/dist/`;
  const encode = async () => {
    const tokenizer = await AutoTokenizer.from_pretrained(repo);
    return Array.from((await tokenizer(sentence)).input_ids.data, Number);
  };
  const ids = await encode();
  const extract = await pipeline("feature-extraction", repo, { dtype: "fp32", device: "wasm" });
  const features = Array.from((await extract(sentence, { pooling: "mean" })).data);
  env.allowLocalModels = true;
  env.allowRemoteModels = false;
  return { ids, features, idsFromCache: await encode() };
}

async function hub() {
  const { downloadFile, fileDownloadInfo, listFiles, pathsInfo } = await import("@huggingface/hub");
  const listed = {};
  for await (const { type, path, size } of listFiles({ hubUrl, repo, recursive: true })) {
    if (type === "file") listed[path] = size;
  }
  // Its JSON body makes this request one that the browser asks leave for first.
  const paths = await pathsInfo({ hubUrl, repo, paths: ["config.json"] });
  const { etag } = await fileDownloadInfo({ hubUrl, repo, path: "model.safetensors" });
  const weights = await (await downloadFile({ hubUrl, repo, path: "model.safetensors" })).arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", weights));
  const missing = await downloadFile({ hubUrl, repo, path: "no-such-file.json" });
  const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { listed, configSize: paths[0].size, etag, sha256, missing };
}

async function report() {
  try {
    return { transformers: await transformers(), hub: await hub() };
  } catch (error) {
    return { error: `${error.message}\n${error.stack}` };
  }
}

await fetch("/report", { method: "POST", body: JSON.stringify(await report()) });
