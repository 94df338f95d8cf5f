# The page as a C file: cmake -DPAGE=index.html -DOUT=live_bytes.c -P embed.cmake
#
# Its script and its style are named by their hashes in the Content-Security-Policy, so that a browser runs
# these and nothing else. A page has one of each.
cmake_minimum_required(VERSION 3.25)

# SHA-256 of a text, in base64 as the policy wants it.
function(hash_of text out)
    set(alphabet ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/)
    string(SHA256 hex "${text}")
    set(base64)
    foreach(at RANGE 0 60 6) # 3 bytes become 4 letters; 32 bytes end with 2 of them
        string(SUBSTRING "${hex}0000" ${at} 6 six)
        math(EXPR number "0x${six}")
        foreach(shift 18 12 6 0)
            math(EXPR index "(${number} >> ${shift}) & 63")
            string(SUBSTRING ${alphabet} ${index} 1 letter)
            string(APPEND base64 ${letter})
        endforeach()
    endforeach()
    string(SUBSTRING "${base64}" 0 43 base64)
    set(${out} "sha256-${base64}=" PARENT_SCOPE)
endfunction()

# What is between <name> and </name>.
function(inside name out)
    string(FIND "${page}" "<${name}>" begin)
    string(FIND "${page}" "</${name}>" end)
    if(begin EQUAL -1 OR end EQUAL -1)
        message(FATAL_ERROR "${PAGE}: no <${name}>")
    endif()
    string(LENGTH "<${name}>" skip)
    math(EXPR begin "${begin} + ${skip}")
    math(EXPR length "${end} - ${begin}")
    string(SUBSTRING "${page}" ${begin} ${length} text)
    set(${out} "${text}" PARENT_SCOPE)
endfunction()

file(READ ${PAGE} page)
inside(style style)
inside(script script)
hash_of("${style}" style_hash)
hash_of("${script}" script_hash)
file(SHA256 ${PAGE} page_hash)
string(SUBSTRING ${page_hash} 0 16 tag)
file(READ ${PAGE} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "((0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,))" "\\1\n" bytes "${bytes}")
set(policy "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; ")
string(APPEND policy "frame-ancestors 'none'; style-src '${style_hash}'; script-src '${script_hash}'")
file(WRITE ${OUT} "/* Made of page/index.html by page/embed.cmake. */
#include \"gateway/live_bytes.h\"

const unsigned char live_page[] = {
${bytes}
};
const size_t live_page_size = sizeof(live_page);
const char live_page_tag[] = \"\\\"${tag}\\\"\";
const char live_page_policy[] = \"${policy}\";
")
