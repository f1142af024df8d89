/* mu-port GOLDEN MODEL OUT [DRAFTER]
 *
 * Runs what the golden folder GOLDEN has run, on the weights MODEL, and writes every tensor to the
 * safetensors file OUT. Of the folder it reads the constants, the tokens, and from the manifest how
 * far to go; with DRAFTER it writes with drafts of one beam. One text at a time.
 */
#include "port.h"

static int *read_tokens(const File *file, Text name, int *n, int room) {
    const Tensor *tensor = find(file, name);
    if (!tensor || tensor->shape[0] != 1) fail("tensors must hold %s, of one text", name);
    int *read = allocate((size_t)(tensor->n + room) * 4);
    for (*n = 0; *n < tensor->n; ++*n) read[*n] = (int)element(tensor, *n);
    return read;
}

static int least(int a, int b) { return a < b ? a : b; }

/* With NTK scaling, tokens verified together must turn alike: none past the base length. */
static int room(const Cache *cache) {
    int length = cache->positions[cache->n - 1] + 1;
    int left = json_int(json_get(config, "decoder"), "rope_base_len") - length;
    return constant("decoder", "rope_turns")->shape[0] == 1 ? 1 << 30 : left > 1 ? left : 1;
}

/* Each pass reads `beam`, n tokens that are not in the cache: the prompt, then the model's own last
 * token and what was drafted behind it. It writes the drafts that it agrees with, and one more. */
static void run(const Cache *memory, int *beam, int n, int left, int draft_len) {
    int n_layers = json_int(json_get(config, "decoder"), "n_layers");
    Cache cache = new_cache(n_layers, n + left + draft_len);
    Value hidden = {0};
    for (int step = 0, n_drafts = 0, ended = 0; left > 0 && !ended; step++) {
        int longest = step ? least(draft_len, least(left, room(&cache)) - 1) : 0;
        call = text("decode/%d", step);
        if (longest > 0) {
            n = draft(hidden, beam, longest, ++n_drafts);
            int *kept = memcpy(allocate((size_t)n * 4), beam, (size_t)n * 4);
            record(text("draft/%d/beams", n_drafts), 32, kept, 3, (int[]){1, 1, n});
            call = text("verify/%d", n_drafts);
        }
        Value states = decode(memory, &cache, beam, n);
        if (!step) states = rows(states, n - 1, 1), n = 1;  // of the prompt, the last state alone
        int *written = argmax(logits(states)), agreed = 0, n_out = 0;
        while (agreed < n - 1 && beam[agreed + 1] == written[agreed]) agreed++;
        cache.n -= n - 1 - agreed;
        for (int layer = 0; layer < n_layers; layer++)
            cache.keys[layer].rows = cache.values[layer].rows = cache.n;
        hidden = rows(states, agreed, 1);
        beam[0] = written[agreed];
        while (n_out < least(agreed + 1, left) && !ended)
            ended = written[n_out++] == json_int(config, "eos_id");
        if (draft_len) record(text("%s/written", call), 32, written, 2, (int[]){1, n_out});
        else record(text("%s/next_tokens", call), 32, written, 1, (int[]){1});
        left -= n_out, n = 1;
    }
}

int main(int n_arguments, char **arguments) {
    if (n_arguments < 4 || n_arguments > 5) fail("use: mu-port GOLDEN MODEL OUT [DRAFTER]");
    constants = read_tensors(text("%s/constants.safetensors", arguments[1]));
    load_weights(0, arguments[2]);
    if (n_arguments == 5) load_weights(1, arguments[4]);
    Text manifest = read_bytes(text("%s/manifest.json", arguments[1]));
    int limit = json_int(manifest, "max_new_tokens"), draft_len = 0, n_source, n;
    if (n_arguments == 5) draft_len = json_int(json_get(manifest, "search"), "draft_len");
    File given = read_tensors(text("%s/tensors.safetensors", arguments[1]));
    int *source = read_tokens(&given, "encode/tokens", &n_source, 0);
    const Tensor *mask = find(&given, "encode/valid");
    char *valid = memcpy(allocate((size_t)n_source), mask->data, (size_t)n_source);
    int *prompt = read_tokens(&given, "decode/0/tokens", &n, draft_len + 1);
    Cache memory = remember(source, valid, n_source);
    run(&memory, prompt, n, limit, draft_len);
    write_recorded(arguments[3]);
    return 0;
}
