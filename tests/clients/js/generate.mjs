// Lets an exported model of @huggingface/transformers write on, greedily, and prints what it writes.
// Arguments: the mirror's address, the cache folder, the repo, the pipeline's task, a text.
import { env, pipeline } from "@huggingface/transformers";

const [host, cacheDir, repo, task, text] = process.argv.slice(2);
env.cacheDir = cacheDir;
env.localModelPath = "/nowhere/";
env.remoteHost = host;
env.allowLocalModels = false;

const write = await pipeline(task, repo, { dtype: "fp32" });
const [{ generated_text }] = await write(text, { max_new_tokens: 6, do_sample: false });
console.log(JSON.stringify({ text: generated_text }));
