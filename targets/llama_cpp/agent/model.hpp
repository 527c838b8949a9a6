// The model: one GGUF and its context, through llama.cpp's C API.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "llama.h"
#include "machine.hpp"
#include "protocol.hpp"

namespace agent {

constexpr int kBatch = 512;       // n_batch and n_ubatch: llama.cpp's own default micro batch
constexpr int kLogitsBlock = 128; // rows of one block of logits
constexpr int64_t kReportNs = 500 * 1000 * 1000;

inline std::string complaint; // the first since the model was asked for: what follows only repeats it

inline void listen(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR && complaint.empty() && text && *text) complaint = std::string(text).substr(0, 400);
}

// The place of the first of the greatest numbers; those that are no numbers are passed over. Lanes that do
// not wait for each other become vectors: `std::max_element` took 0.46 ms for the 151,936 scores of Qwen3,
// which is part of every token's time, and this takes 0.03 ms.
inline size_t first_greatest(const float * numbers, size_t count) {
    constexpr size_t kLanes = 16;
    float lanes[kLanes];
    std::fill(lanes, lanes + kLanes, -std::numeric_limits<float>::infinity());
    size_t at = 0;
    for (; at + kLanes <= count; at += kLanes) {
        for (size_t lane = 0; lane < kLanes; lane++) {
            lanes[lane] = numbers[at + lane] > lanes[lane] ? numbers[at + lane] : lanes[lane];
        }
    }
    for (; at < count; at++) lanes[0] = numbers[at] > lanes[0] ? numbers[at] : lanes[0];
    const float * place = std::find(numbers, numbers + count, *std::max_element(lanes, lanes + kLanes));
    return place == numbers + count ? 0 : size_t(place - numbers);
}

// Joules are counted while one of these is there.
struct Metered {
    Metered() { meter.run(true); }
    ~Metered() { meter.run(false); }
    Metered(const Metered &) = delete;
    Metered & operator=(const Metered &) = delete;
};

class Model {
  public:
    ~Model() { free(); }

    void free() {
        if (context_) llama_free(context_);
        if (model_) llama_model_free(model_);
        context_ = nullptr;
        model_ = nullptr;
    }

    void load(int context, const std::string & kv, int threads, int batch_threads, const std::string & path) {
        free();
        complaint.clear();
        llama_model_params model = llama_model_default_params();
        model.n_gpu_layers = 0;
        // Mapping the file would keep its pages resident next to the copies that kernels repack.
        model.load_mode = LLAMA_LOAD_MODE_NONE;
        model_ = llama_model_load_from_file(path.c_str(), model);
        if (!model_) throw Refusal("input", "llama.cpp cannot load the model: " + complaint);
        vocab_ = llama_model_get_vocab(model_);
        llama_context_params params = llama_context_default_params();
        params.n_ctx = uint32_t(context);
        params.n_batch = params.n_ubatch = uint32_t(std::min(kBatch, context));
        params.n_seq_max = 1;
        params.type_k = params.type_v = cache_type(kv);
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        params.no_perf = true;
        params.n_threads = threads;
        params.n_threads_batch = batch_threads;
        context_ = llama_init_from_model(model_, params);
        if (!context_) throw Refusal("room", "llama.cpp cannot open the context: " + complaint);
        room_ = context;
    }

    void use_threads(int threads, int batch_threads) { llama_set_n_threads(opened(), threads, batch_threads); }

    // Facts of the loaded model that do not change.
    std::string facts() {
        opened();
        std::string ends;
        const int count = llama_vocab_n_tokens(vocab_);
        for (int id = 0; id < count; id++) {
            if (llama_vocab_is_eog(vocab_, id)) ends += (ends.empty() ? "" : ",") + std::to_string(id);
        }
        const char * chat = llama_model_chat_template(model_, nullptr);
        return "\"vocabulary\":" + std::to_string(count) + ",\"ends\":[" + ends + "],\"template\":" + (chat ? quoted(chat) : "null");
    }

    std::vector<llama_token> encode(const std::string & text) {
        opened();
        std::vector<llama_token> ids(text.size() + 1);
        const int count = llama_tokenize(vocab_, text.data(), int(text.size()), ids.data(), int(ids.size()), false, true);
        ids.resize(size_t(std::max(0, count)));
        return ids;
    }

    std::string decode(const std::vector<llama_token> & ids) {
        opened();
        std::string text(64 + 16 * ids.size(), '\0');
        int size = llama_detokenize(vocab_, ids.data(), int(ids.size()), text.data(), int(text.size()), false, true);
        if (size < 0) {
            text.resize(size_t(-size));
            size = llama_detokenize(vocab_, ids.data(), int(ids.size()), text.data(), int(text.size()), false, true);
        }
        text.resize(size_t(std::max(0, size)));
        return text;
    }

    // Greedy from a cold cache. The first token goes out alone, so that what the prompt took is known;
    // the others in groups, twice a second at most, each group with a mark. The time that writing them
    // takes is in no stamp.
    void generate(const std::vector<llama_token> & prompt, int most, bool stop) {
        if (prompt.empty() || most < 0 || int64_t(prompt.size()) + most > room_) {
            throw Refusal("usage", "prompt and answer do not fit the context");
        }
        check(prompt);
        llama_memory_clear(llama_get_memory(opened()), false);
        int64_t paused = 0, reported = clock_ns();
        const int64_t began = reported;
        std::string tokens, stamps;
        const Metered answering; // also when a batch is refused
        feed(prompt);
        for (int count = 0; count < most; count++) {
            llama_token token = best();
            if (stop && llama_vocab_is_eog(vocab_, token)) break;
            const int64_t now = clock_ns();
            tokens += (tokens.empty() ? "" : ",") + std::to_string(token);
            stamps += (stamps.empty() ? "" : ",") + std::to_string(now - paused);
            if (count == 0 || now - reported >= kReportNs) {
                say("{\"tokens\":[" + tokens + "],\"at\":[" + stamps + "],\"mark\":" + mark(now - paused) + "}");
                tokens.clear();
                stamps.clear();
                reported = clock_ns();
                paused += reported - now;
            }
            if (count + 1 < most) feed({token});
        }
        const int64_t now = clock_ns();
        say("{\"tokens\":[" + tokens + "],\"at\":[" + stamps + "],\"mark\":" + mark(now - paused) + ",\"began\":" + std::to_string(began) + "}");
    }

    // The logits after every token: blocks of float32 as the machine has them, each after a line
    // with the number of its rows.
    void logits(const std::vector<llama_token> & ids) {
        if (ids.empty() || int64_t(ids.size()) > room_) throw Refusal("usage", "the tokens do not fit the context");
        check(ids);
        llama_memory_clear(llama_get_memory(opened()), false);
        const int width = llama_vocab_n_tokens(vocab_), step = std::min({kLogitsBlock, kBatch, room_});
        llama_batch batch = llama_batch_init(step, 0, 1);
        for (size_t start = 0; start < ids.size(); start += size_t(step)) {
            const int rows = int(std::min(size_t(step), ids.size() - start));
            batch.n_tokens = rows;
            for (int row = 0; row < rows; row++) {
                batch.token[row] = ids[start + size_t(row)];
                batch.pos[row] = llama_pos(start) + row;
                batch.n_seq_id[row] = 1;
                batch.seq_id[row][0] = 0;
                batch.logits[row] = 1;
            }
            const int code = llama_decode(context_, batch);
            if (code) {
                llama_batch_free(batch);
                throw Refusal("room", "llama.cpp could not compute a batch (code " + std::to_string(code) + ")");
            }
            say("{\"rows\":" + std::to_string(rows) + ",\"width\":" + std::to_string(width) + "}");
            write_all(reinterpret_cast<const char *>(llama_get_logits(context_)), size_t(rows) * size_t(width) * sizeof(float));
        }
        llama_batch_free(batch);
        say("{\"end\":true}");
    }

    void check(const std::vector<llama_token> & ids) {
        opened();
        const int count = llama_vocab_n_tokens(vocab_);
        for (const llama_token id : ids) {
            if (id < 0 || id >= count) throw Refusal("usage", "no such token: " + std::to_string(id));
        }
    }

  private:
    llama_model * model_ = nullptr;
    llama_context * context_ = nullptr;
    const llama_vocab * vocab_ = nullptr;
    int room_ = 0;

    llama_context * opened() {
        if (!context_) throw Refusal("usage", "no model is open");
        return context_;
    }

    static ggml_type cache_type(const std::string & name) {
        for (int type = 0; type < GGML_TYPE_COUNT; type++) {
            const char * known = ggml_type_name(ggml_type(type));
            if (known && name == known) return ggml_type(type);
        }
        throw Refusal("usage", "no such cache type: " + name);
    }

    void feed(std::vector<llama_token> tokens) {
        for (size_t start = 0; start < tokens.size(); start += kBatch) {
            const int count = int(std::min(size_t(kBatch), tokens.size() - start));
            const int code = llama_decode(context_, llama_batch_get_one(tokens.data() + start, count));
            if (code) throw Refusal("room", "llama.cpp could not compute a batch (code " + std::to_string(code) + ")");
        }
    }

    llama_token best() {
        const float * scores = llama_get_logits_ith(context_, -1);
        return llama_token(first_greatest(scores, size_t(llama_vocab_n_tokens(vocab_))));
    }
};

} // namespace agent
