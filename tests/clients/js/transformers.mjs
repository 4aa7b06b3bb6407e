// Loads a tokenizer, a config and a pipeline with @huggingface/transformers and prints what they answer.
// Arguments: the mirror's address ("" for none: then only the cache is asked), the cache folder, the repo, a sentence.
import { AutoConfig, AutoTokenizer, env, pipeline } from "@huggingface/transformers";

const [host, cacheDir, repo, sentence] = process.argv.slice(2);
env.cacheDir = cacheDir;
env.localModelPath = "/nowhere/";
if (host) {
  env.remoteHost = host;
  env.allowLocalModels = false;
} else {
  env.allowRemoteModels = false;
}

const config = await AutoConfig.from_pretrained(repo);
const tokenizer = await AutoTokenizer.from_pretrained(repo);
const { input_ids } = await tokenizer(sentence);
const extract = await pipeline("feature-extraction", repo, { dtype: "fp32" });
const features = await extract(sentence, { pooling: "mean" });
console.log(
  JSON.stringify({
    type: config.model_type,
    ids: Array.from(input_ids.data, Number),
    features: Array.from(features.data),
  }),
);
