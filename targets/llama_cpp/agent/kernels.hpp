// The speed of the engine's kernels and of the memory, timed here: products of weight matrices with
// one token, which decoding is made of, or with many, which a prompt is made of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"
#include "protocol.hpp"

namespace agent {

constexpr double kWarmS = 0.05;
constexpr int kLeastRuns = 3;
constexpr int kMostRuns = 10000;
constexpr int kTile = 64;         // quantized rows that are repeated: values do not matter for the speed
constexpr int kFewMatrices = 2;   // a batch takes the first two: arithmetic bounds it
constexpr size_t kMeta = 4u << 20;

// Nanoseconds of each of the repeated runs of `work`, for so many seconds after a warm start.
template <typename Work> std::string timed(double seconds, Work work) {
    for (const int64_t until = clock_ns() + int64_t(kWarmS * 1e9); work(), clock_ns() < until;) {}
    std::string out;
    const int64_t until = clock_ns() + int64_t(seconds * 1e9);
    for (int runs = 0; runs < kLeastRuns || (clock_ns() < until && runs < kMostRuns); runs++) {
        const int64_t began = clock_ns();
        work();
        out += (out.empty() ? "" : ",") + std::to_string(clock_ns() - began);
    }
    return "[" + out + "]";
}

// Bytes per run and the times of reading a buffer that no cache holds, each thread its own part.
inline std::string read_memory(size_t bytes, int threads, double seconds) {
    const size_t words = bytes / sizeof(uint64_t) / size_t(threads);
    const std::unique_ptr<uint64_t[]> data(new uint64_t[words * size_t(threads)]);
    std::vector<uint64_t> sums(size_t(threads) * 8); // a cache line each
    const auto spread = [&](auto part) {
        std::vector<std::thread> others;
        for (int number = 1; number < threads; number++) others.emplace_back(part, size_t(number));
        part(0);
        for (auto & other : others) other.join();
    };
    spread([&](size_t number) { std::fill_n(data.get() + number * words, words, number); });
    const std::string times = timed(seconds, [&] {
        spread([&](size_t number) {
            const uint64_t * from = data.get() + number * words;
            uint64_t sum[4] = {0, 0, 0, 0}; // four chains: one would wait for its own additions
            for (size_t at = 0; at + 4 <= words; at += 4) {
                for (size_t lane = 0; lane < 4; lane++) sum[lane] += from[at + lane];
            }
            volatile uint64_t & kept = sums[number * 8]; // or the compiler leaves the reading out
            kept = sum[0] + sum[1] + sum[2] + sum[3];
        });
    });
    return "{\"bytes\":" + std::to_string(words * sizeof(uint64_t) * size_t(threads)) + ",\"ns\":" + times + "}";
}

// A stack of weight matrices of one kind, in the layout that llama.cpp itself gives them here.
class Kernels {
  public:
    Kernels() = default;
    Kernels(const Kernels &) = delete;
    Kernels & operator=(const Kernels &) = delete;
    ~Kernels() { free(); }

    void free() {
        graphs_.clear();
        weights_.clear();
        buffer_.reset();
        context_.reset();
        backend_.reset();
    }

    // Returns the bytes of all matrices; `rows` is a multiple of kTile.
    size_t lay(ggml_type type, size_t bytes, int64_t columns, int64_t rows) {
        free();
        ggml_quantize_init(type);
        const ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        if (!device || rows % kTile || columns % ggml_blck_size(type)) throw Refusal("usage", "no such matrices");
        backend_.reset(ggml_backend_dev_init(device, nullptr));
        context_ = context();
        columns_ = columns;
        rows_ = rows;
        const size_t row = ggml_row_size(type, columns), matrix = row * size_t(rows);
        for (size_t count = std::max<size_t>(kFewMatrices, bytes / matrix); weights_.size() < count;) {
            weights_.push_back(ggml_new_tensor_2d(context_.get(), type, columns, rows));
        }
        const ggml_backend_buffer_type_t layout = layout_of(device, weights_[0]);
        buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(context_.get(), layout));
        if (!buffer_) throw Refusal("room", "there is no memory for the weights");
        const std::vector<char> data = quantized(type, row);
        for (ggml_tensor * tensor : weights_) ggml_backend_tensor_set(tensor, data.data(), 0, matrix);
        return weights_.size() * matrix;
    }

    // The times of products with so many tokens, and what one run of them reads or computes.
    std::string run(int tokens, int threads, double seconds) {
        if (weights_.empty()) throw Refusal("usage", "no weights are laid");
        const size_t used = tokens == 1 ? weights_.size() : size_t(kFewMatrices);
        Graph & graph = graph_of(tokens, used);
        use_threads(threads);
        const std::string times = timed(seconds, [&] {
            if (ggml_backend_graph_compute(backend_.get(), graph.work) != GGML_STATUS_SUCCESS) {
                throw Refusal("room", "llama.cpp could not compute a product");
            }
        });
        return "{\"matrices\":" + std::to_string(used) + ",\"bytes\":" + std::to_string(used * ggml_nbytes(weights_[0])) +
               ",\"operations\":" + std::to_string(2 * columns_ * rows_ * int64_t(used) * tokens) + ",\"ns\":" + times + "}";
    }

    static ggml_type type_of(const std::string & name) {
        for (int type = 0; type < GGML_TYPE_COUNT; type++) {
            const char * known = ggml_type_name(ggml_type(type));
            if (known && name == known && ggml_is_quantized(ggml_type(type))) return ggml_type(type);
        }
        throw Refusal("usage", "no such kind of weights: " + name);
    }

  private:
    struct Free {
        void operator()(ggml_context * one) const { ggml_free(one); }
        void operator()(ggml_backend_buffer * one) const { ggml_backend_buffer_free(one); }
        void operator()(ggml_backend * one) const { ggml_backend_free(one); }
    };
    using Context = std::unique_ptr<ggml_context, Free>;
    using Buffer = std::unique_ptr<ggml_backend_buffer, Free>;
    struct Graph {
        int tokens;
        Context context;
        Buffer buffer;
        ggml_cgraph * work;
    };

    std::unique_ptr<ggml_backend, Free> backend_;
    Context context_;
    Buffer buffer_;
    std::vector<ggml_tensor *> weights_;
    std::vector<Graph> graphs_;
    int64_t columns_ = 0, rows_ = 0;

    static Context context() { return Context(ggml_init({kMeta, nullptr, true})); }

    static void * function(const char * name) {
        const ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        return ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), name);
    }

    // As llama.cpp chooses it when it loads a model: the repacking layout where it takes such weights.
    static ggml_backend_buffer_type_t layout_of(ggml_backend_dev_t device, ggml_tensor * weights) {
        const auto extra = (ggml_backend_dev_get_extra_bufts_t) function("ggml_backend_dev_get_extra_bufts");
        for (ggml_backend_buffer_type_t * one = extra ? extra(device) : nullptr; one && *one; one++) {
            if (std::string(ggml_backend_buft_name(*one)) != "CPU_REPACK") continue;
            const Context tried = context();
            const Buffer none(ggml_backend_buft_alloc_buffer(*one, 0));
            ggml_tensor * input = ggml_new_tensor_2d(tried.get(), GGML_TYPE_F32, weights->ne[0], 512);
            ggml_tensor * product = ggml_mul_mat(tried.get(), weights, input);
            weights->buffer = none.get(); // as if it lay there: the kernels are asked about the layout
            const bool taken = ggml_backend_dev_supports_op(device, product);
            weights->buffer = nullptr;
            if (taken) return *one;
        }
        return ggml_backend_dev_buffer_type(device);
    }

    std::vector<char> quantized(ggml_type type, size_t row) const {
        std::vector<float> values(size_t(columns_) * kTile);
        uint32_t state = 1;
        for (float & value : values) {
            state = state * 1664525u + 1013904223u; // Numerical Recipes' generator
            value = (float(state >> 8) / float(1 << 24) - 0.5f) * 0.07f;
        }
        std::vector<char> data(row * size_t(rows_));
        ggml_quantize_chunk(type, values.data(), data.data(), 0, kTile, columns_, nullptr);
        for (size_t at = row * kTile; at < data.size(); at += row * kTile) std::copy_n(data.begin(), row * kTile, data.begin() + int64_t(at));
        return data;
    }

    Graph & graph_of(int tokens, size_t used) {
        for (Graph & known : graphs_) {
            if (known.tokens == tokens) return known;
        }
        Graph graph{tokens, context(), nullptr, nullptr};
        graph.work = ggml_new_graph_custom(graph.context.get(), 2048, false);
        ggml_tensor * input = ggml_new_tensor_2d(graph.context.get(), GGML_TYPE_F32, columns_, tokens);
        for (size_t number = 0; number < used; number++) {
            ggml_build_forward_expand(graph.work, ggml_mul_mat(graph.context.get(), weights_[number], input));
        }
        graph.buffer.reset(ggml_backend_alloc_ctx_tensors(graph.context.get(), backend_.get()));
        if (!graph.buffer) throw Refusal("room", "there is no memory for the products");
        std::vector<float> values(size_t(columns_) * size_t(tokens));
        for (size_t at = 0; at < values.size(); at++) values[at] = float(int(at * 7919 % 2001) - 1000) / 1000;
        ggml_backend_tensor_set(input, values.data(), 0, values.size() * sizeof(float));
        graphs_.push_back(std::move(graph));
        return graphs_.back();
    }

    void use_threads(int threads) {
        const auto set = (ggml_backend_set_n_threads_t) function("ggml_backend_set_n_threads");
        if (set) set(backend_.get(), threads);
    }
};

} // namespace agent
