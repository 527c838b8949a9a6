// Quantizes rows of float32 with the kernels of one build of ggml-quants.c; see quantizer_bytes.py.
//
// quantizer_bytes ROWS COLUMNS VALUES WEIGHTS OUT: VALUES holds ROWS x COLUMNS floats, WEIGHTS one float a column.
// Writes OUT/TYPE (without importances, where the type allows it) and OUT/TYPE.imatrix (with them).

#include "ggml-quants.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef size_t (*quantizer)(const float *, void *, int64_t, int64_t, const float *);

static const struct {
    const char * name;
    enum ggml_type type;
    int64_t elements;  // of a block
    size_t bytes;      // of a block
    quantizer quantize;
    int table;        // what iq2xs_init_impl or iq3xs_init_impl is asked for, 0 for neither
    int needs_weights;
} KINDS[] = {
    {"Q8_0", GGML_TYPE_Q8_0, 32, sizeof(block_q8_0), quantize_q8_0, 0, 0},
    {"Q4_0", GGML_TYPE_Q4_0, 32, sizeof(block_q4_0), quantize_q4_0, 0, 0},
    {"Q4_1", GGML_TYPE_Q4_1, 32, sizeof(block_q4_1), quantize_q4_1, 0, 0},
    {"Q5_0", GGML_TYPE_Q5_0, 32, sizeof(block_q5_0), quantize_q5_0, 0, 0},
    {"Q5_1", GGML_TYPE_Q5_1, 32, sizeof(block_q5_1), quantize_q5_1, 0, 0},
    {"Q2_K", GGML_TYPE_Q2_K, QK_K, sizeof(block_q2_K), quantize_q2_K, 0, 0},
    {"Q3_K", GGML_TYPE_Q3_K, QK_K, sizeof(block_q3_K), quantize_q3_K, 0, 0},
    {"Q4_K", GGML_TYPE_Q4_K, QK_K, sizeof(block_q4_K), quantize_q4_K, 0, 0},
    {"Q5_K", GGML_TYPE_Q5_K, QK_K, sizeof(block_q5_K), quantize_q5_K, 0, 0},
    {"Q6_K", GGML_TYPE_Q6_K, QK_K, sizeof(block_q6_K), quantize_q6_K, 0, 0},
    {"IQ4_NL", GGML_TYPE_IQ4_NL, 32, sizeof(block_iq4_nl), quantize_iq4_nl, 0, 0},
    {"IQ4_XS", GGML_TYPE_IQ4_XS, QK_K, sizeof(block_iq4_xs), quantize_iq4_xs, 0, 0},
    {"IQ3_S", GGML_TYPE_IQ3_S, QK_K, sizeof(block_iq3_s), quantize_iq3_s, 512, 0},
    {"IQ3_XXS", GGML_TYPE_IQ3_XXS, QK_K, sizeof(block_iq3_xxs), quantize_iq3_xxs, 256, 0},
    {"IQ2_S", GGML_TYPE_IQ2_S, QK_K, sizeof(block_iq2_s), quantize_iq2_s, GGML_TYPE_IQ2_S, 0},
    {"IQ2_XS", GGML_TYPE_IQ2_XS, QK_K, sizeof(block_iq2_xs), quantize_iq2_xs, GGML_TYPE_IQ2_XS, 1},
    {"IQ2_XXS", GGML_TYPE_IQ2_XXS, QK_K, sizeof(block_iq2_xxs), quantize_iq2_xxs, GGML_TYPE_IQ2_XXS, 1},
};

// What ggml-quants.c takes of the rest of ggml, none of it arithmetic.
void ggml_abort(const char * file, int line, const char * format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    exit(1);
}

size_t ggml_row_size(enum ggml_type type, int64_t elements) {
    for (size_t kind = 0; kind < sizeof KINDS / sizeof KINDS[0]; kind++) {
        if (KINDS[kind].type == type) {
            return (size_t) (elements / KINDS[kind].elements) * KINDS[kind].bytes;
        }
    }
    ggml_abort(__FILE__, __LINE__, "type %d is not among those that are quantized here", (int) type);
    return 0;
}

size_t ggml_type_size(enum ggml_type type) {
    return ggml_row_size(type, QK_K);  // for the check of rows, which is not called
}

const char * ggml_type_name(enum ggml_type type) {
    (void) type;
    return "";
}

static float * read_floats(const char * path, size_t count) {
    float * values = malloc(count * sizeof(float));
    FILE * file = fopen(path, "rb");
    if (!values || !file || fread(values, sizeof(float), count, file) != count) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    fclose(file);
    return values;
}

static void write_bytes(const char * folder, const char * name, const char * ending, const void * bytes, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s%s", folder, name, ending);
    FILE * file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file)) {
        fprintf(stderr, "%s: cannot be written\n", path);
        exit(1);
    }
}

int main(int count, char ** words) {
    if (count != 6) {
        return 2;
    }
    const int64_t rows = atoll(words[1]), columns = atoll(words[2]);
    const float * values = read_floats(words[3], (size_t) (rows * columns));
    const float * weights = read_floats(words[4], (size_t) columns);
    void * out = malloc((size_t) (rows * columns * 2));
    for (size_t kind = 0; kind < sizeof KINDS / sizeof KINDS[0]; kind++) {
        if (KINDS[kind].table >= 256) {
            iq3xs_init_impl(KINDS[kind].table);
        } else if (KINDS[kind].table) {
            iq2xs_init_impl((enum ggml_type) KINDS[kind].table);
        }
        for (int weighted = KINDS[kind].needs_weights; weighted < 2; weighted++) {
            memset(out, 0, (size_t) (rows * columns * 2));
            size_t size = KINDS[kind].quantize(values, out, rows, columns, weighted ? weights : NULL);
            write_bytes(words[5], KINDS[kind].name, weighted ? ".imatrix" : "", out, size);
        }
    }
    return 0;
}
