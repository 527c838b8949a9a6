// Joules that the machine counts itself, of answers only: what passes between them is not counted.
//
// RAPL: the kernel's powercap interface, energy_uj and max_energy_range_uj. Battery: the
// power_supply class, current_now times voltage_now or power_now, in millionths.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "files.hpp"
#include "protocol.hpp"

namespace agent {

constexpr int kSampleMs = 500;
// Some phones give milliamperes where the kernel's interface says microamperes: no device computes
// with so little.
constexpr double kLeastWatts = 0.1, kMostWatts = 1000;

class Meter {
  public:
    // What counts there is (`folder` is /sys/class): the processor packages, or the battery, which
    // counts the whole device. Empty where nothing tells, and at a charger, where nobody knows what
    // the device takes.
    std::string open(const std::string & folder) {
        const std::lock_guard<std::mutex> held(lock_);
        source_.clear();
        zones_.clear();
        joules_ = 0;
        broken_ = running_ = false;
        const std::string caps = folder + "/powercap/";
        for (const auto & name : names_in(caps, "")) {
            // Zones below a package (core, dram) are parts of it, or none of the processor.
            const bool package = std::count(name.begin(), name.end(), ':') == 1 && first_line(caps + name + "/name").rfind("package", 0) == 0;
            long long now = 0, range = 0;
            if (package && whole_number(caps + name + "/energy_uj", now)) {
                whole_number(caps + name + "/max_energy_range_uj", range);
                zones_.push_back({caps + name + "/energy_uj", now, range});
            }
        }
        supplies_ = folder + "/power_supply/";
        if (!zones_.empty()) {
            source_ = "RAPL, processor package";
        } else if (!std::isnan(watts())) {
            source_ = "battery, whole device";
            if (!sampled_) std::thread([this] { sample(); }).detach();
            sampled_ = true;
        }
        return source_;
    }

    // An answer begins, or has ended.
    void run(bool answering) {
        const std::lock_guard<std::mutex> held(lock_);
        if (running_) count();
        else restart();
        running_ = answering;
    }

    // Joules of answers since the meter was opened, as JSON; null where nothing counts, or no longer.
    std::string joules() {
        const std::lock_guard<std::mutex> held(lock_);
        if (running_) count();
        return source_.empty() || broken_ ? "null" : std::to_string(joules_);
    }

  private:
    struct Zone {
        std::string path;
        long long before, range;
    };

    std::mutex lock_;
    std::string source_, supplies_;
    std::vector<Zone> zones_;
    double joules_ = 0;
    int64_t last_ = 0;
    bool broken_ = false, running_ = false, sampled_ = false;

    void restart() {
        last_ = clock_ns();
        for (Zone & zone : zones_) broken_ = !whole_number(zone.path, zone.before) || broken_;
    }

    // Add what was spent since the last look.
    void count() {
        if (source_.empty()) return;
        if (zones_.empty()) {
            const int64_t now = clock_ns();
            const double power = watts();
            broken_ = broken_ || std::isnan(power); // a charger was plugged in: the sum says nothing any more
            if (!broken_) joules_ += power * double(now - last_) / 1e9;
            last_ = now;
        }
        for (Zone & zone : zones_) {
            long long now = 0;
            broken_ = !whole_number(zone.path, now) || broken_;
            // The counter starts again from 0 after its range.
            joules_ += double(now - zone.before + (now < zone.before ? zone.range : 0)) / 1e6;
            zone.before = now;
        }
    }

    void sample() {
        for (;;) {
            std::this_thread::sleep_for(std::chrono::milliseconds(kSampleMs));
            const std::lock_guard<std::mutex> held(lock_);
            if (running_ && zones_.empty()) count();
        }
    }

    // The power of the battery that discharges, while no other supply is plugged in; else not a number.
    double watts() const {
        double power = NAN;
        for (const auto & name : names_in(supplies_, "")) {
            const std::string supply = supplies_ + name;
            if (first_line(supply + "/type") != "Battery") {
                if (first_line(supply + "/online") == "1") return NAN;
                continue;
            }
            if (first_line(supply + "/status") != "Discharging") continue;
            long long micro = 0, current = 0, voltage = 0;
            double own = NAN;
            if (whole_number(supply + "/power_now", micro)) {
                own = std::fabs(double(micro)) / 1e6;
            } else if (whole_number(supply + "/current_now", current) && whole_number(supply + "/voltage_now", voltage)) {
                own = std::fabs(double(current)) / 1e6 * double(voltage) / 1e6;
            }
            if (std::isnan(power) && own >= kLeastWatts && own <= kMostWatts) power = own;
        }
        return power;
    }
};

inline Meter meter;

} // namespace agent
