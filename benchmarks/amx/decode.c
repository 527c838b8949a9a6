/* Reads a prompt of ids with a GGUF model and writes its logits: decode MODEL IDS OUT [--no-repack] */
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level >= GGML_LOG_LEVEL_WARN || strstr(text, "AMX") || strstr(text, "repack") || strstr(text, "buffer size")) fputs(text, stderr);
}

int main(int count, char **arguments) {
    llama_token ids[512]; int used = 0;
    FILE *list = fopen(arguments[2], "r");
    while (used < 512 && fscanf(list, "%d", &ids[used]) == 1) used++;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model_params model_params = llama_model_default_params();
    model_params.use_extra_bufts = count < 5;
    struct llama_model *model = llama_model_load_from_file(arguments[1], model_params);
    if (!model) return 3;
    struct llama_context_params context_params = llama_context_default_params();
    context_params.n_ctx = 512; context_params.n_batch = context_params.n_ubatch = 512;
    context_params.n_threads = context_params.n_threads_batch = 1;
    struct llama_context *context = llama_init_from_model(model, context_params);
    if (!context) return 3;
    fprintf(stderr, "opened\n");
    int size = llama_vocab_n_tokens(llama_model_get_vocab(model));
    struct llama_batch batch = llama_batch_init(512, 0, 1);
    for (int i = 0; i < used; i++) {
        batch.token[i] = ids[i]; batch.pos[i] = i; batch.n_seq_id[i] = 1; batch.seq_id[i][0] = 0; batch.logits[i] = 1;
    }
    batch.n_tokens = used;
    if (llama_decode(context, batch)) return 4;
    FILE *out = fopen(arguments[3], "wb");
    for (int i = 0; i < used; i++) fwrite(llama_get_logits_ith(context, i), sizeof(float), size, out);
    fclose(out);
    fprintf(stderr, "%d rows of %d logits\n", used, size);
    fflush(NULL);
    _exit(0);
}
