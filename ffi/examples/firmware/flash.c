/* A simulation of the strictest kind of flash memory: a word can be programmed once after each erasure. The file
 * flash.bin keeps the contents between runs. If the file cut.txt exists, it holds a number of words and sectors. When
 * that many have been changed, the power fails in the middle of the next change. */
#include "board.h"

enum { SLOT = 65536, SECTOR = 2048, WORD = 8, ERASED = 0xFF, POWER_FAILED = 3 };

static uint8_t memory[2][SLOT];
static uint32_t changes, most;

void board_flash_begin(void)
{
    char digits[12];
    const size_t length = board_read_file("cut.txt", digits, sizeof digits);
    if (board_read_file("flash.bin", memory, sizeof memory) == 0)
        for (size_t i = 0; i < sizeof memory; i++) memory[i / SLOT][i % SLOT] = ERASED;
    most = length ? 0 : UINT32_MAX;
    for (size_t i = 0; i < length && digits[i] >= '0' && digits[i] <= '9'; i++) most = 10 * most + (digits[i] - '0');
}

void board_flash_end(void)
{
    if (board_write_file("flash.bin", memory, sizeof memory) != sizeof memory)
        board_print("flash.bin cannot be written\n");
}

const uint8_t *board_flash_slot(size_t slot)
{
    return memory[slot];
}

uint32_t board_flash_changes(void)
{
    return changes;
}

/* Changes one word or sector to the given contents. NULL erases it. */
static void change(uint8_t *place, const uint8_t *bytes, size_t size)
{
    const int cut = changes == most;
    if (cut) size /= 2;
    for (size_t i = 0; i < size; i++) place[i] = bytes ? bytes[i] : ERASED;
    if (cut) {
        board_flash_end();
        board_print("the power has failed\n");
        board_exit(POWER_FAILED);
    }
    changes++;
}

static int32_t erase(void *context, size_t slot)
{
    (void)context;
    for (size_t at = 0; at < SLOT; at += SECTOR) change(memory[slot] + at, NULL, SECTOR);
    return 0;
}

static int32_t program(void *context, size_t slot, size_t at, const uint8_t *bytes, size_t size)
{
    (void)context;
    if (at % WORD || size % WORD) return -1;
    for (size_t i = 0; i < size; i++)
        if (memory[slot][at + i] != ERASED) return -2;
    for (size_t i = 0; i < size; i += WORD) change(memory[slot] + at + i, bytes + i, WORD);
    return 0;
}

static int32_t read(void *context, size_t slot, size_t at, uint8_t *bytes, size_t size)
{
    (void)context;
    for (size_t i = 0; i < size; i++) bytes[i] = memory[slot][at + i];
    return 0;
}

const jostle_flash board_flash = {
    .struct_size = sizeof board_flash,
    .write_size = WORD,
    .slot_size = SLOT,
    .erase = erase,
    .program = program,
    .read = read,
};
