// Drives the Verilated chip: its clock, the host's words, the modelled external memory, and the notebook of what issued and completed when.
//
// The memory is the model of chip/memory.py, wall cycle by wall cycle: beats arrive `latency` cycles after they were granted, nothing moves in a refresh,
// and credit grows by the rate up to rate + one beat. Compute cycles are counted by the ticks of the compute clock.
//
// Before this text stand TILES, OPS (opcodes), UNITS, POINTER_BITS, SOURCE_BITS, PORTS (deliveries per tile), EXTERNAL, BEAT_BYTES;
// MACROS per tile, ROWS and PART_BYTES of a macro's row, LINE_BYTES of a bank's, and MEMORIES(model): a pointer to each, tile by tile (one macro: the flat memory).

#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

namespace {

constexpr uint64_t FNV_OFFSET = 0xCBF29CE484222325ull, FNV_PRIME = 0x100000001B3ull;
constexpr int SEND = OPS - 1;

struct Mark {  // a footprint that is written: isa/footprint.py
    int64_t tile, base, offset, size, outer, outer_stride, inner, inner_stride;
};

struct Base {
    int64_t outer, inner, pos, last;
};

struct Event {  // isa/trace.py, and the unit
    uint32_t op;
    uint16_t outer, inner;
    int64_t issue, completion, held;
    uint64_t written;
};

struct Flying {
    int event;
    uint32_t targets;  // tiles that a send has yet to reach
};

struct Due {
    int64_t cycle;
    int event;
};

struct Beat {
    int64_t wall;
    uint32_t mask;
    int64_t address;
};

struct Program {
    const int32_t* index;  // [tiles, units, depth]
    int64_t depth;
    const int32_t* op;      // [micro-ops] opcode
    const uint32_t* masks;  // [micro-ops] targets of a send, 0: external
    const Mark* marks;
    const int64_t* mark_at;
    const Base* bases;
    int64_t position, last;
};

struct Chip {
    VerilatedContext context;
    Model model{&context};
#if VM_TRACE
    VerilatedFstC* trace = nullptr;
#endif
    int64_t trace_from = 0, trace_to = 0;
    int64_t now = 0;  // cycles of the free clock since power on

    int64_t rate, latency, interval, refresh;
    uint8_t* external = nullptr;
    int64_t external_bytes = 0;
    int64_t wall = 0, credit = 0;
    std::deque<Beat> beats;
    Beat writing{-1, 0, 0};
    int64_t writing_bytes = 0;

    int64_t compute = 0, held = 0;
    bool running = false;
    const Program* program = nullptr;
    std::vector<Event>* events = nullptr;
    std::deque<Flying> flying[TILES][OPS];
    std::deque<Due> due;
    const uint8_t* memories[TILES * MACROS] = MEMORIES(model);
    int fault = 0;  // 1: a completion nobody waits for, 2: an issue of no micro-op, 3: a grant that cannot be

    void fall() {
        model.clk = 0;
#if EXTERNAL
        arrive();
#endif
        model.eval();
        dump(2 * now);
    }

    void rise() {
        model.clk = 1;
        model.eval();
        dump(2 * now + 1);
        now++;
    }

    void dump(int64_t at) {
#if VM_TRACE
        if (trace && now >= trace_from && now < trace_to) trace->dump(uint64_t(at));
#else
        (void)at;
#endif
    }

    // --- the external memory ---

#if EXTERNAL
    void arrive() {
        model.arrival = 0;
        if (!running || beats.empty() || beats.front().wall != wall || !model.streaming) return;
        const Beat& beat = beats.front();
        model.arrival = 1;
        model.arrival_mask = beat.mask;
        copy(beat.address);
        beats.pop_front();
    }

    void copy(int64_t address) {
        int64_t size = external_bytes - address;
        size = size < 0 ? 0 : size > BEAT_BYTES ? BEAT_BYTES : size;
        std::memcpy(reinterpret_cast<uint8_t*>(&model.arrival_data[0]), external + address, size);
    }

    void write() {
        if (writing.wall < 0) return;
        const uint8_t* data = nullptr;
        for (int tile = 0; tile < TILES; tile++)
            if (writing.mask >> tile & 1) data = reinterpret_cast<const uint8_t*>(write_data(tile));
        if (!data || writing.address + writing_bytes > external_bytes) { fault = 3; return; }
        std::memcpy(external + writing.address, data, writing_bytes);
        writing.wall = -1;
    }

    const WData* write_data(int tile) { return WRITE_DATA(model, tile); }

    void memory() {
        write();
        model.grant = 0;
        if (!model.streaming) return;
        const int64_t at = wall++;
        if (at % interval >= interval - refresh) return;
        const int64_t price = 1000 * BEAT_BYTES;
        credit = credit + rate < rate + price ? credit + rate : rate + price;
        if (credit < price || !model.request) return;
        model.grant = 1;
        credit -= price;
        if (model.write) {
            writing = {at, uint32_t(model.mask), int64_t(model.address)};
            writing_bytes = model.size;
        } else {
            beats.push_back({at + latency, uint32_t(model.mask), int64_t(model.address)});
        }
    }
#endif

    // --- the notebook ---

    uint8_t byte(int64_t tile, int64_t address) const {
        if (MACROS == 1) return memories[tile][address];
        const int64_t line = address / LINE_BYTES, part = address % LINE_BYTES / PART_BYTES, parts = LINE_BYTES / PART_BYTES;
        return memories[tile * MACROS + line / ROWS * parts + part][line % ROWS * PART_BYTES + address % PART_BYTES];
    }

    int64_t base_value(const Base& base, const Event& event) const {
        return base.outer * event.outer + base.inner * event.inner + base.pos * program->position + base.last * program->last;
    }

    uint64_t hash(const Event& event) {
        uint64_t digest = FNV_OFFSET;
        for (int64_t at = program->mark_at[event.op]; at < program->mark_at[event.op + 1]; at++) {
            const Mark& mark = program->marks[at];
            const int64_t start = mark.offset + base_value(program->bases[mark.base], event);
            for (int64_t i = 0; i < mark.outer; i++)
                for (int64_t k = 0; k < mark.inner; k++) {
                    const int64_t first = start + i * mark.outer_stride + k * mark.inner_stride;
                    for (int64_t x = 0; x < mark.size; x++) digest = (digest ^ byte(mark.tile, first + x)) * FNV_PRIME;
                }
        }
        return digest;
    }

    void issue(int tile, int unit) {
        const int64_t pointer = word(model.pointers, (tile * UNITS + unit) * POINTER_BITS, POINTER_BITS);
        const int32_t op = pointer < program->depth ? program->index[(tile * UNITS + unit) * program->depth + pointer] : -1;
        if (op < 0) { fault = 2; return; }
        const int number = int(events->size());
        events->push_back({uint32_t(op), uint16_t(model.outer), uint16_t(model.inner), compute, -1, held, 0});
        flying[tile][program->op[op]].push_back({number, program->op[op] == SEND ? program->masks[op] : 0});
    }

    void complete(int tile, int op, int64_t cycle) {
        auto& queue = flying[tile][op];
        auto at = queue.begin();
        // A send to external memory may be done before an earlier one that still has hops to go.
        while (at != queue.end() && at->targets) ++at;
        if (at == queue.end()) { fault = 1; return; }
        finish(at->event, cycle);
        queue.erase(at);
    }

    void finish(int event, int64_t cycle) {
        (*events)[event].completion = cycle;
        // The last bytes are presented a cycle after completion, and stand in flat memory in the middle of it, in a bank's macro at its end. A cycle later
        // the next micro-op may write there.
        due.push_back({cycle + (MACROS == 1 ? 1 : 2), event});
    }

    void deliver(int source, int target, int64_t cycle) {
        auto& queue = flying[source][SEND];
        for (auto at = queue.begin(); at != queue.end(); ++at)
            if (at->targets >> target & 1) {
                at->targets &= ~(1u << target);
                if (!at->targets) { finish(at->event, cycle); queue.erase(at); }
                return;
            }
        fault = 1;
    }

    template <class W> static int64_t word(const W& wide, int at, int bits) {
        if constexpr (std::is_integral_v<W>) return int64_t(uint64_t(wide) >> at & ((1ull << bits) - 1));
        else {
            uint64_t low = uint64_t(wide[at / 32]) >> (at % 32);
            if (at % 32 + bits > 32) low |= uint64_t(wide[at / 32 + 1]) << (32 - at % 32);
            return int64_t(low & ((1ull << bits) - 1));
        }
    }

    void note() {
        if (model.waiting) { held++; return; }
        if (model.any_issue)
            for (int at = 0; at < TILES * UNITS; at++)
                if (word(model.issues, at, 1)) issue(at / UNITS, at % UNITS);
#if PORTS
        // Before the completions, which are of a later cycle: `due` stays in order.
        if (model.any_delivered)
            for (int at = 0; at < TILES * PORTS; at++)
                if (word(model.delivered, at, 1)) deliver(int(word(model.delivered_from, at * SOURCE_BITS, SOURCE_BITS)), at / PORTS, compute - 1);
#endif
        if (model.any_done)
            for (int at = 0; at < TILES * OPS; at++)
                if (word(model.dones, at, 1)) complete(at / OPS, at % OPS, compute);
        while (!due.empty() && due.front().cycle <= compute) settle();
        compute++;
    }

    void settle() {
        Event& event = (*events)[due.front().event];
        event.written = hash(event);
        due.pop_front();
    }

    // --- the clock ---

    void cycle() {
        fall();
        if (running) {
#if EXTERNAL
            memory();
#endif
            if (model.computing) note();
        }
        rise();
    }
};

}  // namespace

extern "C" {

Chip* chip_new(const int64_t* timing, uint8_t* external, int64_t bytes) {
    Chip* chip = new Chip;
    chip->rate = timing[0], chip->latency = timing[1], chip->interval = timing[2], chip->refresh = timing[3];
    chip->external = external, chip->external_bytes = bytes;
    // Each clock domain hands its reset on a cycle later.
    for (int k = 0; k < 32; k++) {
        chip->model.rst = k < 16;
        chip->fall();
        chip->rise();
    }
    return chip;
}

void chip_end_trace(Chip* chip) {
#if VM_TRACE
    if (chip->trace) chip->trace->close();
    delete chip->trace;
    chip->trace = nullptr;
#else
    (void)chip;
#endif
}

void chip_delete(Chip* chip) {
    chip_end_trace(chip);
    delete chip;
}

// Gives the host's words and takes `answers` words: 0, or -1 if that takes more than `limit` cycles.
int64_t chip_talk(Chip* chip, const uint32_t* words, int64_t count, uint32_t* out, int64_t answers, int64_t limit) {
    int64_t given = 0, taken = 0;
    for (int64_t spent = 0; given < count || taken < answers; spent++) {
        if (spent > limit) return -1;
        chip->model.in_valid = given < count;
        chip->model.in_data = given < count ? words[given] : 0;
        chip->model.out_ready = taken < answers;
        chip->fall();
        if (chip->model.in_valid && chip->model.in_ready) given++;
        if (chip->model.out_valid && chip->model.out_ready) out[taken++] = chip->model.out_data;
        if (chip->running) {
#if EXTERNAL
            chip->memory();
#endif
            if (chip->model.computing) chip->note();
        }
        chip->rise();
    }
    chip->model.in_valid = 0;
    return 0;
}

// Runs an entry: `words` start it. Events come in the order of issue; their number, or -1 out of time, -2 no room for them, -10-fault where the harness
// and the chip do not understand each other.
int64_t chip_run(Chip* chip, const Program* program, const uint32_t* words, int64_t count, uint32_t* answer, int64_t answers, Event* out, int64_t room,
                 int64_t limit, int64_t* counted) {
    std::vector<Event> events;
    chip->program = program, chip->events = &events;
    chip->compute = chip->held = chip->wall = chip->credit = 0;
    chip->running = true;
    const int64_t status = chip_talk(chip, words, count, answer, answers, limit);
    chip->running = false;
    while (!chip->due.empty()) chip->settle();
    counted[0] = chip->compute, counted[1] = chip->held, counted[2] = chip->wall, counted[3] = chip->model.waiting;
    if (chip->fault) return -10 - chip->fault;
    if (status < 0) return -1;
    if (int64_t(events.size()) > room) return -2;
    std::memcpy(out, events.data(), events.size() * sizeof(Event));
    return int64_t(events.size());
}

void chip_sram(Chip* chip, int64_t tile, int64_t address, int64_t count, uint8_t* out) {
    for (int64_t k = 0; k < count; k++) out[k] = chip->byte(tile, address + k);
}

int64_t chip_cycles(Chip* chip) { return chip->now; }

void chip_trace(Chip* chip, const char* path, int64_t from, int64_t to) {
#if VM_TRACE
    chip->context.traceEverOn(true);
    chip->trace = new VerilatedFstC;
    chip->model.trace(chip->trace, 99);
    chip->trace->open(path);
    chip->trace_from = from, chip->trace_to = to;
#endif
}
}
